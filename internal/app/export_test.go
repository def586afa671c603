package app

// Quotas is for tests.
var Quotas = quotas
