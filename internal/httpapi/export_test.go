package httpapi

// CheckBody is checkBody, for tests.
var CheckBody = checkBody
