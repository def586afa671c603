package resource

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings"
)

// What is deleted along with a resource, and what is updated because it loses a
// reference. All events are attributed to the caller who deletes it, and
// dependents are deleted first.
func TestCascades(t *testing.T) {
	databases(t, Options{}, func(f *fixture) {
		admin := f.user(RoleAdmin)
		for _, test := range cascades {
			f.cascade(test, admin)
		}
	})
}

type cascade struct {
	name string
	do   func(f *fixture, id map[string]string, ann, admin Caller) error
	want string // the events, sorted
	last string // the last one
	user string // who caused them
}

var cascades = []cascade{
	{
		"a file", func(f *fixture, id map[string]string, ann, _ Caller) error {
			return f.Files.Delete(f.Context(), ann, id["file"], 0)
		},
		"-file -text", "-file", "ann",
	},
	{
		"a context", func(f *fixture, id map[string]string, ann, _ Caller) error {
			return f.Contexts.Delete(f.Context(), ann, id["context"], 0)
		},
		"-context -file -store -text", "-context", "ann",
	},
	{
		"contents of idle contexts", func(f *fixture, _ map[string]string, _, _ Caller) error {
			_, err := f.Contexts.Expire(f.Context(), time.Nanosecond)
			return err
		},
		"-file -store -text", "-store", "ann",
	},
	{
		"a provider", func(f *fixture, id map[string]string, _, admin Caller) error {
			return f.Providers.Delete(f.Context(), admin, id["provider"], 0)
		},
		"+build +context +other context -feedback -other feedback -provider", "-provider", "admin",
	},
	{
		"a user", func(f *fixture, _ map[string]string, ann, admin Caller) error {
			return f.Users.Delete(f.Context(), admin, ann.UserID, 0)
		},
		"+other context -build -connector -context -feedback -file -loose file -loose store -other feedback " +
			"-provider -store -text -user",
		"-user", "admin",
	},
}

// cascade deletes a resource in a world of its own, and compares the events.
func (f *fixture) cascade(test cascade, admin Caller) {
	f.Helper()
	ann, bob := f.user(RoleDeveloper), f.user(RoleUser)
	id := f.world(ann, bob)
	f.events()
	f.must(test.do(f, id, ann, admin))
	name := make(map[string]string)
	for n, i := range id {
		name[i] = n
	}
	callers := map[string]string{ann.UserID: "ann", admin.UserID: "admin"}
	var got []string
	for _, e := range f.events() {
		sign := map[tidings.Action]string{tidings.Updated: "+", tidings.Deleted: "-"}[e.Action]
		got = append(got, sign+name[e.ResourceID])
		asOwner := e.Type == ProviderBuildType && e.Action == tidings.Updated
		if by := callers[e.UserID]; by != test.user && !asOwner {
			f.Errorf("%s: %s%s is attributed to %q, want %s", test.name, sign, name[e.ResourceID], by, test.user)
		}
	}
	if last := got[len(got)-1]; last != test.last {
		f.Errorf("%s: the last event is %s, want %s", test.name, last, test.last)
	}
	for _, inner := range [][2]string{
		{"-text", "-file"}, {"-file", "-context"}, {"-store", "-context"}, {"-feedback", "-provider"},
	} {
		if i, o := slices.Index(got, inner[0]), slices.Index(got, inner[1]); o >= 0 && i > o {
			f.Errorf("%s: %s comes after %s", test.name, inner[0], inner[1])
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(test.want, strings.Join(got, " ")); diff != "" {
		f.Errorf("%s: %s", test.name, diff)
	}
	for _, left := range []Caller{ann, bob} {
		if err := f.Users.Delete(f.Context(), admin, left.UserID, 0); err != nil && !isCode(err, NotFound) {
			f.Error(err)
		}
	}
}

// world creates resources of two users, some of which refer to others, and
// returns their ids by name.
func (f *fixture) world(ann, bob Caller) map[string]string {
	f.Helper()
	id := map[string]string{"user": ann.UserID}
	made := func(name string, typ tidings.ResourceType, who Caller, of about) *string {
		made := f.sample(typ, who, of)
		id[name] = *made
		return made
	}
	of := about{provider: made("provider", ProviderType, ann, about{})}
	other := about{of.provider, made("other context", ContextType, bob, of)}
	of.context = made("context", ContextType, ann, of)
	file := made("file", FileType, ann, of)
	text := &File{FileType: extractedText, ParentFileID: file, ContextID: of.context}
	_, err := f.Files.create(f.Context(), ann, text)
	f.must(err)
	id["text"] = text.ID
	made("store", VectorStoreType, ann, of)
	made("loose file", FileType, ann, about{})
	made("loose store", VectorStoreType, ann, about{})
	made("connector", ConnectorType, ann, of)
	made("build", ProviderBuildType, ann, of)
	made("feedback", UserFeedbackType, ann, of)
	made("other feedback", UserFeedbackType, bob, other)
	return id
}

// A deleted user leaves no rows behind, of any type, and no details. Resources that
// outlive their owner stay.
func TestADeletedUserLeavesNothing(t *testing.T) {
	databases(t, Options{}, func(f *fixture) {
		ann, admin := f.user(RoleAdmin), f.user(RoleAdmin)
		of := about{provider: f.sample(ProviderType, ann, about{})}
		of.context = f.sample(ContextType, ann, of)
		for _, typ := range f.types {
			if make := samples[typ.info().Type]; make != nil {
				_, err := make(f, ann, of)
				f.must(err)
			}
		}
		f.must(f.UseKeys(f.Context()))
		secret := "s"
		f.must(f.Users.PutVariables(f.Context(), ann, VariableChanges{"A": &secret}))
		f.must(f.Providers.PutVariables(f.Context(), ann, *of.provider, 0, VariableChanges{"A": &secret}))
		_, err := f.Contexts.AddHistory(f.Context(), ann, *of.context, []byte(`{"role":"user","parts":[]}`))
		f.must(err)
		f.must(f.Users.Delete(f.Context(), admin, ann.UserID, 0))
		for _, d := range f.declarations() {
			if n := f.rows(d.table, "created_by", ann.UserID); n != 0 {
				f.Errorf("%d rows of %s still belong to them", n, d.table)
			}
		}
		for table, key := range map[string][2]string{
			"context_history": {"context_id", *of.context}, "variables": {"owner_id", ann.UserID},
		} {
			if n := f.rows(table, key[0], key[1]); n != 0 {
				f.Errorf("%d rows of %s are left", n, table)
			}
		}
		if n := f.rows("variables", "owner_id", *of.provider); n != 0 {
			f.Errorf("%d variables of their provider remain", n)
		}
		list, err := f.ModelProviders.List(f.Context(), admin, Page{Limit: 10, OrderBy: "created_at"})
		if err != nil || len(list.Items) != 1 {
			f.Errorf("model providers must outlive the user who created them: %v, %v", list, err)
		}
	})
}
