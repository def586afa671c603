package httpapi

// CheckBody is checkBody, for tests.
var CheckBody = checkBody

// Network is network, for tests.
var Network = network
