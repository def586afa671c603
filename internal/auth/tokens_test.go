package auth_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/internal/auth"
	"github.com/tidings-dev/tidings/internal/resource"
)

// users records the last identity.
type users struct{ last resource.Identity }

func (u *users) SignIn(_ context.Context, id resource.Identity) (resource.Caller, error) {
	u.last = id
	return resource.Caller{UserID: id.Email, Role: id.Role}, nil
}

func (u *users) Lookup(ctx context.Context, id resource.Identity) (resource.Caller, error) {
	return u.SignIn(ctx, id)
}

func TestAuthenticate(t *testing.T) {
	tokens := []auth.Token{
		{SHA256: auth.Hash("reader"), User: "Ann@example.com", Role: resource.RoleUser},
		{SHA256: auth.Hash("writer"), User: "ann@example.com", Role: resource.RoleDeveloper},
		{SHA256: auth.Hash("boss"), User: "boss@example.com", Role: resource.RoleAdmin},
		{SHA256: auth.Hash("chief"), User: "chief@example.com", Role: resource.RoleUser},
	}
	tests := []struct {
		header string
		want   resource.Identity
	}{
		{"Bearer reader", resource.Identity{
			Email: "Ann@example.com", Role: resource.RoleUser,
			NewRole: resource.RoleDeveloper,
		}},
		{"bearer writer", resource.Identity{
			Email: "ann@example.com", Role: resource.RoleDeveloper,
			NewRole: resource.RoleDeveloper,
		}},
		{"Bearer boss", resource.Identity{
			Email: "boss@example.com", Role: resource.RoleAdmin,
			NewRole: resource.RoleAdmin,
		}},
		{"Bearer chief", resource.Identity{
			Email: "chief@example.com", Role: resource.RoleUser,
			NewRole: resource.RoleAdmin, Promote: true,
		}},
		{"", resource.Identity{}},
		{"Bearer", resource.Identity{}},
		{"Bearer ", resource.Identity{}},
		{"Basic reader", resource.Identity{}},
		{"Bearer Reader", resource.Identity{}},
		{"Bearer " + strings.Repeat("r", 5000), resource.Identity{}},
		{"Bearer " + tokens[0].SHA256, resource.Identity{}},
	}
	for _, test := range tests {
		u := new(users)
		a, err := auth.New(u, auth.Options{Tokens: tokens, AdminEmails: []string{"Chief@example.com"}})
		if err != nil {
			t.Fatal(err)
		}
		id, err := a.Identify(test.header)
		if err == nil {
			_, err = a.Caller(t.Context(), id)
		}
		var e *resource.Error
		if test.want.Email == "" && (!errors.As(err, &e) || e.Code != resource.Unauthenticated) {
			t.Errorf("%q: error = %v, want unauthenticated", test.header, err)
		}
		if diff := cmp.Diff(test.want, u.last); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.header, diff)
		}
	}
}

func TestAdminToken(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "data")
	first, file, created, err := auth.AdminToken(folder)
	if err != nil || !created {
		t.Fatalf("created = %v, %v", created, err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v; want 0600", info.Mode(), err)
	}
	text, err := os.ReadFile(file)
	if err != nil || auth.Hash(strings.TrimSpace(string(text))) != first.SHA256 {
		t.Errorf("the file does not contain the token: %v", err)
	}
	again, _, created, err := auth.AdminToken(folder)
	if err != nil || created || again != first {
		t.Errorf("second start: created = %v, %v; want the same token", created, err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := auth.AdminToken(folder); err == nil {
		t.Error("accepted an empty token")
	}
}
