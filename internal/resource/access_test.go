package resource

import (
	"context"
	"testing"

	"github.com/tidings-dev/tidings"
	"github.com/tidings-dev/tidings/internal/store"
)

// access tries what a caller may do with a resource. It returns a letter for
// each of read, update, delete and seeing its events: upper case if the caller
// may, "-" if the resource does not exist for them, and "!" if their role is
// insufficient.
func (f *fixture) access(c verbs, who Caller, e tidings.Event) string {
	f.Helper()
	letters := ""
	for _, try := range []struct {
		do     verb
		letter string
	}{{reading, "R"}, {updating, "U"}, {deleting, "D"}} {
		do, letter := try.do, try.letter
		read, lock := c.may(f.Context(), who, do, e.ResourceID)
		if isCode(read, Forbidden) {
			letter = "!"
		} else if isCode(read, NotFound) {
			letter = "-"
		} else if read != nil {
			f.Fatal(read)
		}
		if isCode(lock, Forbidden) != isCode(read, Forbidden) || isCode(lock, NotFound) != isCode(read, NotFound) {
			f.Errorf("%s: to read: %v; to lock: %v", e.Type, read, lock)
		}
		letters += letter
	}
	if f.MayRead(who, e) {
		return letters + "E"
	}
	return letters + "-"
}

type verbs interface {
	may(ctx context.Context, who Caller, do verb, id string) (read, lock error)
}

// may tries to get a resource for a verb, outside and inside a transaction.
func (c *collection[R]) may(ctx context.Context, who Caller, do verb, id string) (read, lock error) {
	_, read = c.find(ctx, who, do, id)
	return read, c.store.InTx(ctx, func(tx *store.Tx) error {
		_, err := c.lock(ctx, tx, who, do, id, 0)
		return err
	})
}

// Who may read (R), update (U) and delete (D) resources of each type, and see
// their events (E). To others the resource does not exist (-), or their role is
// insufficient (!).
func TestAccess(t *testing.T) {
	const none = "----"
	tests := map[tidings.ResourceType]struct{ owner, demoted, user, developer, admin string }{
		ConfigurationType: {"RUDE", "R!!E", "R!!E", "R!!E", "RUDE"},
		ConnectorType:     {"RUDE", "RUDE", none, none, "---E"},
		ContextType:       {"RUDE", "RUDE", none, none, "---E"},
		FileType:          {"RUDE", "RUDE", none, none, "---E"},
		ModelProviderType: {"RUDE", "R!!E", "R!!E", "R!!E", "RUDE"},
		ProviderType:      {"RUDE", "R!!E", "R!!E", "R--E", "RUDE"},
		ProviderBuildType: {"RUDE", "!!!-", "!!!-", "R--E", "RUDE"},
		UserType:          {"RUDE", "!!!-", "!!!-", "!!!-", "RUDE"},
		UserFeedbackType:  {"RUDE", "RUDE", none, none, "RUDE"},
		VectorStoreType:   {"RUDE", "RUDE", none, none, "---E"},
	}
	databases(t, Options{}, func(f *fixture) {
		owner, user, developer, admin := f.user(RoleAdmin), f.user(RoleUser), f.user(RoleDeveloper), f.user(RoleAdmin)
		of := about{provider: f.sample(ProviderType, owner, about{})}
		of.context = f.sample(ContextType, owner, about{})
		f.events()
		for _, typ := range f.types {
			e := tidings.Event{Type: typ.info().Type, OwnerID: owner.UserID}
			want, ok := tests[e.Type]
			if !ok {
				f.Errorf("%s: add its permissions to the table in internal/resource/access_test.go", e.Type)
				continue
			}
			if e.Type == ConfigurationType {
				row, err := f.Configurations.System(f.Context(), admin)
				f.must(err)
				e.ResourceID = row.ID
			} else {
				f.sample(e.Type, owner, of)
				e = f.events()[0]
			}
			for _, caller := range []struct {
				name, want string
				who        Caller
			}{
				{"owner", want.owner, owner},
				{"owner whose role is now user", want.demoted, Caller{UserID: owner.UserID, Role: RoleUser}},
				{"user", want.user, user},
				{"developer", want.developer, developer},
				{"admin", want.admin, admin},
				{"reader", "R!!E", Caller{UserID: user.UserID, Role: RoleReader}},
			} {
				if got := f.access(typ.(verbs), caller.who, e); got != caller.want {
					f.Errorf("%s, %s: %s, want %s", e.Type, caller.name, got, caller.want)
				}
			}
		}
	})
}

// Users see the events of their own user. A caller restricted to a context
// finds only what is in it.
func TestAccessOfOneself(t *testing.T) {
	databases(t, Options{}, func(f *fixture) {
		ann, bob := f.user(RoleUser), f.user(RoleUser)
		for _, e := range f.events() {
			if may := f.MayRead(ann, e); may != (e.ResourceID == ann.UserID) {
				f.Errorf("ann may see the event of %s: %v", e.ResourceID, may)
			}
		}
		if f.MayRead(bob, tidings.Event{Type: "note", OwnerID: bob.UserID}) {
			f.Error("an event of a type that is not registered may be seen")
		}
		here, there := f.sample(ContextType, ann, about{}), f.sample(ContextType, ann, about{})
		limited := ann
		limited.ContextID = *here
		for _, typ := range []tidings.ResourceType{FileType, VectorStoreType} {
			for _, test := range []struct {
				context *string
				found   bool
			}{{here, true}, {there, false}, {nil, false}} {
				id := f.sample(typ, ann, about{context: test.context})
				for _, registered := range f.types {
					if registered.info().Type != typ {
						continue
					}
					read, _ := registered.(verbs).may(f.Context(), limited, reading, *id)
					if (read == nil) != test.found {
						f.Errorf("%s: found: %v; want it found: %v", typ, read, test.found)
					}
				}
			}
		}
	})
}
