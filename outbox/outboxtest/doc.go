// Package outboxtest is for the tests of programs that use package outbox: [Told]
// says what a program told, without a network, and a [Receiver] is an endpoint that
// gets webhooks and verifies them.
//
//	func TestOrder(t *testing.T) {
//		db := outbox.SQLite(openShop(t))
//		hooks, err := outbox.Open(t.Context(), db, outbox.Options{Types: shop.Types})
//		…
//		shop.Order(hooks, "lamp")
//		outboxtest.Told(t, db, outbox.Event{Type: "order", Action: "created", ID: "1"})
//	}
package outboxtest
