package main

import "testing"

// It ends once the webhook arrived.
func TestExampleShowsAWebhook(*testing.T) { main() }
