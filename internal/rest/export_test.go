package rest

// CheckBody is checkBody, for tests.
var CheckBody = checkBody
