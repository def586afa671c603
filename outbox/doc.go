// Package outbox sends webhooks for a program's changes if, and only if, their
// transactions commit. It is the only package of Tidings that most programs need.
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
// [Outbox.Tell] writes one small row in the program's transaction. [Outbox.Run]
// numbers committed events, delivers each one to every endpoint whose patterns
// match, in order for each resource and with retries, and removes data past its
// retention. Any number of processes may call Tell and Run on one PostgreSQL
// database; they share the endpoints. On SQLite, one process at a time delivers.
//
// An event says what changed but carries no data: receivers read the resource from
// its URL.
package outbox
