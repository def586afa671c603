package httpapi

// Network is network, for tests.
var Network = network
