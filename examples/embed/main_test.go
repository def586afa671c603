package main

import "testing"

// It ends once the webhook arrived.
func TestExampleShowsAWebhook(t *testing.T) {
	t.Chdir(t.TempDir()) // it makes shop.db
	main()
}
