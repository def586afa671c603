// Package outboxtest helps to test programs that use package outbox. [Told] checks
// what a program told, without a network. A [Receiver] is an endpoint that receives
// and verifies webhooks.
//
//	func TestOrder(t *testing.T) {
//		db := outbox.SQLite(openShop(t))
//		hooks, err := outbox.Open(t.Context(), db, outbox.Options{Types: shop.Types})
//		…
//		shop.Order(hooks, "lamp")
//		outboxtest.Told(t, db, outbox.Event{Type: "order", Action: "created", ID: "1"})
//	}
package outboxtest
