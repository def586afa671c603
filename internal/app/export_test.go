package app

// Quotas exports quotas.
var Quotas = quotas
