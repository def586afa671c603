package httpapi

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/internal/rest"
)

// routes registers every path under /api/v1, type by type.
func (a *api) routes() {
	a.providerRoutes()
	a.providerBuildRoutes()
	a.contextRoutes()
	a.fileRoutes()
	a.vectorStoreRoutes()
	a.modelProviderRoutes()
	a.configurationRoutes()
	a.connectorRoutes()
	a.userRoutes()
	a.userFeedbackRoutes()
	a.keyRoutes()
}

type variables struct {
	Variables map[string]string `json:"variables" nullable:"false"`
}

type variableChanges struct {
	Variables resource.VariableChanges `json:"variables" maxProperties:"100" doc:"Merged into the existing variables; null removes one."`
}

func asVariables(values map[string]string, err error) (*rest.Plain[variables], error) {
	return rest.Answer(variables{values}, err)
}

// putVariables registers an operation that changes variables. It always answers
// 201, as the SDKs of the Agent Stack expect.
func putVariables[I any](a *api, path, id, summary string, do func(context.Context, resource.Caller, *I) error) {
	op := rest.Operation(http.MethodPut, path, id, summary)
	op.DefaultStatus = http.StatusCreated
	register(a, op, func(ctx context.Context, who resource.Caller, in *I) (*rest.Plain[null], error) {
		return rest.Answer(null{}, do(ctx, who, in))
	})
}

func (a *api) providerRoutes() {
	r := a.Resources
	create(a, "/providers", "createProvider", "Create a provider", r.Providers.Create)
	list(a, "/providers", "listProviders", "List providers", func(ctx context.Context, who resource.Caller, in *struct {
		Paging
		Origin    string `query:"origin"`
		UserOwned string `query:"user_owned" enum:"true,false" doc:"true: your own; false: those of other users."`
	},
	) (*resource.Items[*resource.Provider], error) {
		return r.Providers.List(ctx, who, in.page(),
			resource.ProviderFilter{Origin: in.Origin, UserOwned: choice(in.UserOwned)})
	})
	get(a, "/providers/{id}", "getProvider", "Get a provider", r.Providers.Get)
	change(a, http.MethodPatch, "/providers/{id}", "updateProvider", "Update a provider", r.Providers.Patch)
	remove(a, "/providers/{id}", "deleteProvider", "Delete a provider", r.Providers.Delete)
	register(a, rest.Operation(http.MethodPost, "/providers/preview", "previewProvider",
		"Preview a provider without creating it"),
		func(ctx context.Context, who resource.Caller,
			in *rest.WithBody[resource.NewProvider]) (*rest.Plain[*resource.Provider],
			error,
		) {
			return rest.Answer(r.Providers.Preview(ctx, who, in.Body))
		})
	register(a, rest.Operation(http.MethodGet, byLocation+"{location}", "getProviderByLocation",
		"Get a provider by location"),
		func(ctx context.Context, who resource.Caller, in *struct {
			Location string `path:"location" doc:"The location, percent-encoded."`
		},
		) (*one[*resource.Provider], error) {
			return answer(r.Providers.ByLocation(ctx, who, in.Location))
		})
	register(a, rest.Operation(http.MethodGet, "/providers/{id}/variables", "getProviderVariables",
		"Get a provider's variables"),
		func(ctx context.Context, who resource.Caller, in *rest.ByID) (*rest.Plain[variables], error) {
			return asVariables(r.Providers.Variables(ctx, who, in.ID))
		})
	putVariables(a, "/providers/{id}/variables", "updateProviderVariables", "Update a provider's variables",
		func(ctx context.Context, who resource.Caller, in *struct {
			rest.ByID
			Precondition
			Body variableChanges
		},
		) error {
			return r.Providers.PutVariables(ctx, who, in.ID, in.version(), in.Body.Variables)
		})
}

func (a *api) providerBuildRoutes() {
	r := a.Resources
	create(a, "/provider_builds", "createProviderBuild", "Create a provider build", r.ProviderBuilds.Create)
	list(a, "/provider_builds", "listProviderBuilds", "List provider builds",
		func(ctx context.Context, who resource.Caller, in *struct {
			Paging
			Status    string `query:"status" enum:"missing,in_progress,build_completed,completed,failed"`
			UserOwned string `query:"user_owned" enum:"true,false" doc:"true: your own; false: those of other users."`
		},
		) (*resource.Items[*resource.ProviderBuild], error) {
			return r.ProviderBuilds.List(ctx, who, in.page(),
				resource.ProviderBuildFilter{Status: in.Status, UserOwned: choice(in.UserOwned)})
		})
	get(a, "/provider_builds/{id}", "getProviderBuild", "Get a provider build", r.ProviderBuilds.Get)
	change(a, http.MethodPatch, "/provider_builds/{id}", "updateProviderBuild",
		"Update a provider build", r.ProviderBuilds.Patch)
	remove(a, "/provider_builds/{id}", "deleteProviderBuild", "Delete a provider build", r.ProviderBuilds.Delete)
	register(a, rest.Operation(http.MethodPost, "/provider_builds/preview", "previewProviderBuild",
		"Preview a provider build without creating it"),
		func(_ context.Context, who resource.Caller,
			in *rest.WithBody[resource.NewProviderBuild],
		) (*rest.Plain[*resource.ProviderBuild], error) {
			return rest.Answer(r.ProviderBuilds.Preview(who, in.Body))
		})
}

func (a *api) contextRoutes() {
	r := a.Resources
	create(a, "/contexts", "createContext", "Create a context", r.Contexts.Create)
	list(a, "/contexts", "listContexts", "List contexts",
		func(ctx context.Context, who resource.Caller, in *struct {
			Paging
			ProviderID   string `query:"provider_id" format:"uuid"`
			IncludeEmpty bool   `query:"include_empty" default:"true" doc:"Include contexts without history."`
		},
		) (*resource.Items[*resource.Context], error) {
			return r.Contexts.List(ctx, who, in.page(),
				resource.ContextFilter{ProviderID: in.ProviderID, NotEmpty: !in.IncludeEmpty})
		})
	get(a, "/contexts/{id}", "getContext", "Get a context", r.Contexts.Get)
	change(a, http.MethodPut, "/contexts/{id}", "replaceContext", "Replace a context's metadata", r.Contexts.Put)
	change(a, http.MethodPatch, "/contexts/{id}/metadata", "updateContextMetadata", "Update a context's metadata",
		r.Contexts.PatchMetadata)
	remove(a, "/contexts/{id}", "deleteContext", "Delete a context with its files and vector stores",
		r.Contexts.Delete)

	add := rest.Operation(http.MethodPost, "/contexts/{id}/history", "addHistory",
		"Add an A2A message or artifact to the history")
	add.Errors = []int{http.StatusConflict}
	add.DefaultStatus = http.StatusCreated
	register(a, add, func(ctx context.Context, who resource.Caller, in *struct {
		rest.ByID
		Body json.RawMessage
	},
	) (*created, error) {
		item, err := r.Contexts.AddHistory(ctx, who, in.ID, in.Body)
		if err != nil {
			return nil, err
		}
		return &created{Location: root + "/contexts/" + item.ContextID + "/history/" + item.ID}, nil
	})
	list(a, "/contexts/{id}/history", "listHistory", "List a context's history",
		func(ctx context.Context, who resource.Caller, in *struct {
			rest.ByID
			Cut
			OrderBy string `query:"order_by" enum:"created_at" default:"created_at"`
		},
		) (*resource.Items[*resource.HistoryItem], error) {
			return r.Contexts.History(ctx, who, in.ID, in.by(in.OrderBy))
		})
	register(a, rest.Operation(http.MethodGet, "/contexts/{id}/history/{item_id}", "getHistoryItem",
		"Get a history item"),
		func(ctx context.Context, who resource.Caller, in *struct {
			rest.ByID
			ItemID string `path:"item_id" format:"uuid"`
		},
		) (*rest.Plain[*resource.HistoryItem], error) {
			return rest.Answer(r.Contexts.HistoryItem(ctx, who, in.ID, in.ItemID))
		})
	register(a, rest.Operation(http.MethodDelete, "/contexts/{id}/history", "deleteHistory",
		"Delete a history item and all later ones"),
		func(ctx context.Context, who resource.Caller, in *struct {
			rest.ByID
			FromID string `query:"from_id" format:"uuid" required:"true"`
		},
		) (*nothing, error) {
			return nil, r.Contexts.DeleteHistory(ctx, who, in.ID, in.FromID)
		})
}

func (a *api) vectorStoreRoutes() {
	r := a.Resources
	create(a, "/vector_stores", "createVectorStore", "Create a vector store", r.VectorStores.Create)
	list(a, "/vector_stores", "listVectorStores", "List vector stores",
		func(ctx context.Context, who resource.Caller, in *Paging) (*resource.Items[*resource.VectorStore], error) {
			return r.VectorStores.List(ctx, who, in.page())
		})
	get(a, "/vector_stores/{id}", "getVectorStore", "Get a vector store", r.VectorStores.Get)
	remove(a, "/vector_stores/{id}", "deleteVectorStore", "Delete a vector store", r.VectorStores.Delete)

	add := rest.Operation(http.MethodPut, "/vector_stores/{id}", "addVectorStoreItems",
		"Add items to a vector store, all or none")
	add.Errors = []int{http.StatusConflict}
	add.MaxBodyBytes = itemsLimit
	register(a, add, func(ctx context.Context, who resource.Caller, in *struct {
		rest.ByID
		Precondition
		Body []resource.VectorStoreItem `maxItems:"5000"`
	},
	) (*one[*resource.VectorStore], error) {
		return answer(r.VectorStores.AddItems(ctx, who, in.ID, in.version(), in.Body))
	})
	register(a, rest.Operation(http.MethodPost, "/vector_stores/{id}/search", "searchVectorStore",
		"Search a vector store for the nearest items"),
		scanning(a, func(ctx context.Context, who resource.Caller, in *struct {
			rest.ByID
			Body resource.Search
		},
		) (*rest.Plain[*resource.Items[*resource.Found]], error) {
			return rest.Answer(r.VectorStores.Search(ctx, who, in.ID, in.Body))
		}))
	list(a, "/vector_stores/{id}/documents", "listDocuments", "List the documents in a vector store",
		scanning(a, func(ctx context.Context, who resource.Caller, in *struct {
			rest.ByID
			PageToken string `query:"page_token" maxLength:"256" doc:"The id of the last document of the previous page."`
		},
		) (*resource.Items[*resource.Document], error) {
			return r.VectorStores.Documents(ctx, who, in.ID, in.PageToken)
		}))
	register(a, rest.Operation(http.MethodDelete, "/vector_stores/{id}/documents/{document_id}",
		"deleteDocument", "Delete a document and its items"),
		func(ctx context.Context, who resource.Caller, in *struct {
			rest.ByID
			DocumentID string `path:"document_id"`
		},
		) (*nothing, error) {
			return nil, r.VectorStores.DeleteDocument(ctx, who, in.ID, in.DocumentID)
		})
}

func (a *api) modelProviderRoutes() {
	r := a.Resources
	create(a, "/model_providers", "createModelProvider", "Create a model provider", r.ModelProviders.Create)
	list(a, "/model_providers", "listModelProviders", "List model providers",
		func(ctx context.Context, who resource.Caller, in *Paging) (*resource.Items[*resource.ModelProvider], error) {
			return r.ModelProviders.List(ctx, who, in.page())
		})
	get(a, "/model_providers/{id}", "getModelProvider", "Get a model provider", r.ModelProviders.Get)
	change(a, http.MethodPatch, "/model_providers/{id}", "updateModelProvider",
		"Update a model provider", r.ModelProviders.Patch)
	remove(a, "/model_providers/{id}", "deleteModelProvider", "Delete a model provider", r.ModelProviders.Delete)
	register(a, rest.Operation(http.MethodPost, "/model_providers/match", "matchModels",
		"Find models similar to the suggested ones"),
		func(ctx context.Context, who resource.Caller,
			in *rest.WithBody[resource.ModelMatch],
		) (*rest.Plain[*resource.Items[*resource.MatchedModel]], error) {
			offer, err := r.ModelProviders.Offer(ctx, who) // may wait for model providers, without holding a place
			if err != nil {
				return nil, err
			}
			return scanning(a,
				func(ctx context.Context, _ resource.Caller,
					in resource.ModelMatch,
				) (*rest.Plain[*resource.Items[*resource.MatchedModel]], error) {
					return rest.Answer(offer.Match(ctx, in))
				})(ctx, who, in.Body)
		})
}

func (a *api) configurationRoutes() {
	r := a.Resources
	register(a, rest.Operation(http.MethodGet, "/configurations/system", "getConfiguration",
		"Get the system-wide defaults"),
		func(ctx context.Context, who resource.Caller, _ *struct{}) (*one[*resource.Configuration], error) {
			return answer(r.Configurations.System(ctx, who))
		})
	set := rest.Operation(http.MethodPut, "/configurations/system", "updateConfiguration",
		"Replace the system-wide defaults")
	set.Errors = []int{http.StatusNotFound}
	register(a, set,
		func(ctx context.Context, who resource.Caller, in *struct {
			Precondition
			Body resource.SystemConfiguration
		},
		) (*one[*resource.Configuration], error) {
			return answer(r.Configurations.PutSystem(ctx, who, in.version(), in.Body))
		})
}

func (a *api) connectorRoutes() {
	r := a.Resources
	create(a, "/connectors", "createConnector", "Create a connector to an MCP server", r.Connectors.Create)
	list(a, "/connectors", "listConnectors", "List connectors",
		func(ctx context.Context, who resource.Caller, in *Paging) (*resource.Items[*resource.Connector], error) {
			return r.Connectors.List(ctx, who, in.page())
		})
	get(a, "/connectors/{id}", "getConnector", "Get a connector", r.Connectors.Get)
	remove(a, "/connectors/{id}", "deleteConnector", "Delete a connector", r.Connectors.Delete)
	list(a, "/connectors/presets", "listConnectorPresets", "List connector presets",
		func(context.Context, resource.Caller, *struct{}) (*resource.Items[resource.Preset], error) {
			return r.Connectors.Presets(), nil
		})
	connect := rest.Operation(http.MethodPost, "/connectors/{id}/connect", "connect", "Connect a connector")
	connect.Errors = []int{http.StatusBadGateway, http.StatusGatewayTimeout}
	register(a, connect,
		func(ctx context.Context, who resource.Caller, in *struct {
			rest.ByID
			Body *resource.Connection
		},
		) (*one[*resource.Connector], error) {
			return answer(r.Connectors.Connect(ctx, who, in.ID, in.Body))
		})
	disconnect := rest.Operation(http.MethodPost, "/connectors/{id}/disconnect", "disconnect", "Disconnect a connector")
	disconnect.Errors = []int{http.StatusConflict}
	register(a, disconnect,
		func(ctx context.Context, who resource.Caller, in *rest.ByID) (*one[*resource.Connector], error) {
			return answer(r.Connectors.Disconnect(ctx, who, in.ID))
		})
}

func (a *api) userRoutes() {
	r := a.Resources
	for path, id := range map[string]string{"/users/me": "getMe", "/user": "getUser"} {
		op := rest.Operation(http.MethodGet, path, id, "Get the current user")
		op.Tags = []string{"users"}
		register(a, op, func(ctx context.Context, who resource.Caller, _ *struct{}) (*one[*resource.User], error) {
			return answer(r.Users.Me(ctx, who))
		})
	}
	list(a, "/users", "listUsers", "List users", func(ctx context.Context, who resource.Caller, in *struct {
		Paging
		Email string `query:"email" doc:"Text that the e-mail address contains."`
	},
	) (*resource.Items[*resource.User], error) {
		return r.Users.List(ctx, who, in.page(), in.Email)
	})
	get(a, "/users/{id}", "getUserByID", "Get a user", r.Users.Get)
	change(a, http.MethodPatch, "/users/{id}", "updateUser", "Update a user's role", r.Users.Patch)
	remove(a, "/users/{id}", "deleteUser", "Delete a user and everything they own", r.Users.Delete)
	register(a, rest.Operation(http.MethodGet, "/variables", "getVariables", "Get your variables"),
		func(ctx context.Context, who resource.Caller, _ *struct{}) (*rest.Plain[variables], error) {
			return asVariables(r.Users.Variables(ctx, who))
		})
	putVariables(a, "/variables", "updateVariables", "Update your variables",
		func(ctx context.Context, who resource.Caller, in *rest.WithBody[variableChanges]) error {
			return r.Users.PutVariables(ctx, who, in.Body.Variables)
		})
}

func (a *api) userFeedbackRoutes() {
	r := a.Resources
	op := rest.Operation(http.MethodPost, "/user_feedback", "createUserFeedback", "Create user feedback")
	op.DefaultStatus = http.StatusCreated
	op.Errors = []int{http.StatusConflict}
	register(a, op,
		func(ctx context.Context, who resource.Caller, in *rest.WithBody[resource.NewUserFeedback]) (*created, error) {
			row, err := r.UserFeedback.Create(ctx, who, in.Body)
			if err != nil {
				return nil, err
			}
			return &created{Location: root + "/user_feedback/" + row.ID}, nil
		})
	list(a, "/user_feedback", "listUserFeedback", "List user feedback",
		func(ctx context.Context, who resource.Caller, in *struct {
			Paging
			ProviderID  string `query:"provider_id" format:"uuid"`
			AfterCursor string `query:"after_cursor" format:"uuid" doc:"Alias of page_token."`
		},
		) (*resource.Items[*resource.UserFeedback], error) {
			if in.AfterCursor != "" {
				if in.PageToken != "" {
					return nil, &resource.Error{
						Code: resource.Invalid, Field: "query.after_cursor",
						Message: "set either after_cursor or page_token, not both",
					}
				}
				in.PageToken = in.AfterCursor
			}
			return r.UserFeedback.List(ctx, who, in.page(), in.ProviderID)
		})
	get(a, "/user_feedback/{id}", "getUserFeedback", "Get user feedback", r.UserFeedback.Get)
	remove(a, "/user_feedback/{id}", "deleteUserFeedback", "Delete user feedback", r.UserFeedback.Delete)
}
