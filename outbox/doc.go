// Package outbox gives a program webhooks that exist exactly when its transactions
// commit. It is all that most programs need of Tidings.
//
//	hooks, err := outbox.Open(ctx, outbox.Postgres(pool), outbox.Options{
//		Types:     outbox.Types{"order": nil},
//		Endpoints: []tidings.Endpoint{{URL: "https://warehouse.example/hook", Secrets: []string{secret}}},
//	})
//	if err != nil {
//		return err
//	}
//	defer hooks.Close()
//	go hooks.Run(ctx)
//
//	tx, err := pool.Begin(ctx)
//	// … the program's own statements …
//	err = hooks.Tell(ctx, tx, outbox.Event{Type: "order", Action: "created", ID: id, URL: "/orders/" + id})
//	err = tx.Commit(ctx) // there is nothing else to call
//
// [Outbox.Tell] writes one narrow row in the program's transaction. [Outbox.Run]
// numbers what was committed, delivers it to every endpoint that wants it, in order
// for each resource and again until it arrives, and removes what is past its
// retention. Any number of processes may Tell and Run on one PostgreSQL database:
// they share the endpoints. On SQLite, one process at a time delivers.
//
// The event names what changed and carries none of its data: receivers read the
// resource from its URL.
package outbox
