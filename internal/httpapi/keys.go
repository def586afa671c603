package httpapi

import (
	"context"
	"net/http"

	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/internal/rest"
)

// keyRoutes registers the admin operations on the keys that encrypt secrets in
// the database.
func (a *api) keyRoutes() {
	r := a.Resources
	register(a, rest.Operation(http.MethodGet, "/keys", "listKeys", "List encryption keys"),
		func(ctx context.Context, who resource.Caller, _ *struct{}) (*rest.Plain[*resource.Items[*resource.Key]],
			error,
		) {
			return rest.Answer(r.Keys(ctx, who))
		})
	register(a, rest.Operation(http.MethodPost, "/keys/rotate", "rotateKeys",
		"Re-encrypt a batch of secrets with the first key"),
		func(ctx context.Context, who resource.Caller, in *struct {
			After string `query:"after" maxLength:"4096" doc:"The value of next from the previous response; omit it to start from the beginning."`
		},
		) (*rest.Plain[*resource.Rotation], error) {
			rotation, err := r.RotateKeys(ctx, who, in.After)
			if err == nil {
				a.Logger.InfoContext(ctx, "operator: rotate encryption keys", "rotated",
					rotation.Rotated, "left", rotation.Left,
					"unreadable", len(rotation.Unreadable), "user_id", who.UserID)
			}
			return rest.Answer(rotation, err)
		})
}
