package resource

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/uptrace/bun"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/store"
)

// Up to the test, this is the file of an eleventh type as CONTRIBUTING
// describes it.

const noteType tidings.ResourceType = "note"

// note is a text that a user keeps, inside or outside a context.
type note struct {
	bun.BaseModel `bun:"table:notes"`
	Base

	ContextID *string `json:"context_id"`
	Text      string  `json:"text"`
	Secret    string  `json:"-"`
}

type notes struct {
	*collection[*note]
	contexts *Contexts
}

func newNotes(contexts *Contexts) *notes {
	return &notes{contexts: contexts, collection: newCollection(kind[*note]{
		Type:       noteType,
		URL:        "/api/v1/notes/{id}",
		New:        func() *note { return new(note) },
		policy:     privateInContext,
		References: []reference[*note]{{To: ContextType, Column: "context_id"}},
	})}
}

func (n *notes) Create(ctx context.Context, who Caller, text string) (*note, error) {
	row := &note{Text: text, ContextID: who.context()}
	err := n.store.InTx(ctx, func(tx *store.Tx) error {
		if err := n.contexts.enter(ctx, tx, who, row.ContextID); err != nil {
			return err
		}
		return n.insert(ctx, tx, who, row)
	})
	return row, err
}

func (n *notes) Get(ctx context.Context, who Caller, id string) (*note, error) {
	return n.get(ctx, who, id)
}

func (n *notes) Patch(ctx context.Context, who Caller, id, text, secret string) (*note, error) {
	return n.update(ctx, who, id, 0, func(_ *store.Tx, row *note) (hidden bool, err error) {
		hidden = row.Secret != secret
		row.Text, row.Secret = text, secret
		return hidden, nil
	})
}

func (n *notes) Delete(ctx context.Context, who Caller, id string) error {
	return n.delete(ctx, who, id, 0)
}

// notesMigration is its migration, for each database.
var notesMigration = map[string]string{
	"": `CREATE TABLE notes (id TEXT PRIMARY KEY, version INTEGER NOT NULL,
		created_at TIMESTAMP NOT NULL, updated_at TIMESTAMP NOT NULL, created_by TEXT NOT NULL REFERENCES users,
		context_id TEXT REFERENCES contexts, text TEXT NOT NULL, secret TEXT NOT NULL)`,
	"tidings.": `CREATE TABLE tidings.notes (id uuid PRIMARY KEY, version bigint NOT NULL,
		created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL, created_by uuid NOT NULL REFERENCES tidings.users,
		context_id uuid REFERENCES tidings.contexts, text text NOT NULL, secret text NOT NULL)`,
}

// A type that follows the recipe is complete: those who may see its changes do,
// and it is deleted with its owner, its context, or an idle context. Nothing
// else needs to know about it.
func TestAnEleventhType(t *testing.T) {
	quotas := Quotas{Resources: map[tidings.ResourceType]Quota{noteType: {Max: 5, Setting: "limits.notes"}}}
	databases(t, Options{Quotas: quotas}, func(f *fixture) {
		f.exec(notesMigration[f.schema])
		notes := newNotes(f.Contexts)
		f.register(notes)
		ctx, ann, bob, admin := f.Context(), f.user(RoleUser), f.user(RoleUser), f.user(RoleAdmin)
		f.events()

		row, err := notes.Create(ctx, ann, "a")
		f.must(err)
		for _, change := range [][2]string{{"b", ""}, {"b", ""}, {"b", "s"}} { // the second changes nothing
			_, err = notes.Patch(ctx, ann, row.ID, change[0], change[1])
			f.must(err)
		}
		for _, other := range []Caller{bob, admin} {
			if _, err := notes.Get(ctx, other, row.ID); !isCode(err, NotFound) {
				f.Errorf("somebody else's note: %v", err)
			}
		}
		f.must(notes.Delete(ctx, ann, row.ID))
		events := f.events()
		if got, want := strings.Join(names(events), " "),
			"note.created note.updated note.updated note.deleted"; got != want {
			f.Errorf("events: %s; want %s", got, want)
		}
		for _, e := range events {
			if e.ResourceURL != "/api/v1/notes/"+row.ID || e.UserID != ann.UserID {
				f.Errorf("event: %+v", e)
			}
			if a, b, c := f.MayRead(ann, e), f.MayRead(admin, e), f.MayRead(bob, e); !a || !b || c {
				f.Errorf("%s: ann may see it: %v, an admin: %v, bob: %v; want ann and the admin", e.Name(), a, b, c)
			}
		}

		inContext := func() Caller {
			in := ann
			in.ContextID = *f.sample(ContextType, ann, about{})
			_, err := notes.Create(ctx, in, "in")
			f.must(err)
			return in
		}
		for _, test := range []struct {
			name string
			do   func() error
			want string
		}{
			{
				"context deleted", func() error { return f.Contexts.Delete(ctx, ann, inContext().ContextID, 0) },
				"context.created note.created note.deleted context.deleted",
			},
			{"context idle", func() error {
				inContext()
				n, err := f.Contexts.Expire(ctx, time.Nanosecond)
				if n != 1 {
					f.Errorf("%d contexts expired, want 1", n)
				}
				return err
			}, "context.created note.created note.deleted"},
			{"user deleted", func() error {
				if _, err := notes.Create(ctx, ann, "loose"); err != nil {
					return err
				}
				return f.Users.Delete(ctx, admin, ann.UserID, 0)
			}, "note.created context.deleted note.deleted user.deleted"},
		} {
			f.must(test.do())
			if got := strings.Join(names(f.events()), " "); got != test.want {
				f.Errorf("%s: %s; want %s", test.name, got, test.want)
			}
		}
		if n := f.rows("notes", "created_by", ann.UserID); n != 0 {
			f.Errorf("%d notes outlive their owner", n)
		}
		for i := range 6 {
			if _, err := notes.Create(ctx, bob, "n"); (err == nil) != (i < 5) {
				f.Errorf("note %d of 5: %v", i+1, err)
			}
		}
	})
}

// An incomplete type fails TestEveryType with a message that says what is
// missing.
func TestATypeThatIsIncomplete(t *testing.T) {
	databases(t, Options{}, func(f *fixture) {
		f.exec(strings.Replace(notesMigration[f.schema], "REFERENCES "+f.schema+"users", "", 1))
		want := []string{"notes: register the type of this table in New (internal/resource/resources.go), or, " +
			"if its rows " +
			`are part of a context, list {row, "context_id"} in Details (internal/resource/context.go)`}
		if diff := cmp.Diff(want, f.missing()); diff != "" {
			f.Error(diff)
		}
		f.register(newCollection(kind[*note]{Type: noteType, New: func() *note { return new(note) }}))
		want = []string{
			"note: put the type into internal/resource/note.go",
			`note: set URL in its kind (internal/resource/note.go), such as /api/v1/notes/{id}; it is ""`,
			"note: set policy in its kind (internal/resource/note.go), such as private",
			"note: add a sample to samples (internal/resource/fixture_test.go)",
			"note: add REFERENCES users to created_by in its migration (internal/store/migrations), so that " +
				"a request " +
				"can't create one while its owner is deleted, or set Unowned in its kind (internal/resource/note.go)",
			`note: list {To: "context", Column: "context_id"} in References (internal/resource/note.go)`,
		}
		if diff := cmp.Diff(want, f.missing()); diff != "" {
			f.Error(diff)
		}
	})
}

func names(events []tidings.Event) (all []string) {
	for _, e := range events {
		all = append(all, e.Name())
	}
	return all
}
