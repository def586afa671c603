package main

import "testing"

// The example ends once the webhook has arrived.
func TestExampleShowsAWebhook(t *testing.T) {
	t.Chdir(t.TempDir()) // for shop.db
	main()
}
