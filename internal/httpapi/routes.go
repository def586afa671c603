package httpapi

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/tidings-dev/tidings/internal/resource"
	"github.com/tidings-dev/tidings/internal/rest"
)

// routes is every path under /api/v1, a type at a time.
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
	Variables resource.VariableChanges `json:"variables" maxProperties:"100" doc:"Merged into those there are; null removes one."`
}

func asVariables(values map[string]string, err error) (*rest.Plain[variables], error) {
	return rest.Answer(variables{values}, err)
}

// putVariables adds an operation that changes variables. It answers 201 whatever
// it changed, as the SDKs of the Agent Stack expect.
func putVariables[I any](a *api, path, id, summary string, do func(context.Context, resource.Caller, *I) error) {
	op := rest.Operation(http.MethodPut, path, id, summary)
	op.DefaultStatus = http.StatusCreated
	register(a, op, func(ctx context.Context, who resource.Caller, in *I) (*rest.Plain[null], error) {
		return rest.Answer(null{}, do(ctx, who, in))
	})
}

func (a *api) providerRoutes() {
	r := a.Resources
	create(a, "/providers", "createProvider", "Make an agent known", r.Providers.Create)
	list(a, "/providers", "listProviders", "List agents", func(ctx context.Context, who resource.Caller, in *struct {
		Paging
		Origin    string `query:"origin"`
		UserOwned string `query:"user_owned" enum:"true,false" doc:"true: your own; false: those of others."`
	},
	) (*resource.Items[*resource.Provider], error) {
		return r.Providers.List(ctx, who, in.page(),
			resource.ProviderFilter{Origin: in.Origin, UserOwned: choice(in.UserOwned)})
	})
	get(a, "/providers/{id}", "getProvider", "Read an agent", r.Providers.Get)
	change(a, http.MethodPatch, "/providers/{id}", "updateProvider", "Change an agent", r.Providers.Patch)
	remove(a, "/providers/{id}", "deleteProvider", "Forget an agent", r.Providers.Delete)
	register(a, rest.Operation(http.MethodPost, "/providers/preview", "previewProvider",
		"See what an agent would be, without keeping it"),
		func(ctx context.Context, who resource.Caller, in *rest.WithBody[resource.NewProvider]) (*rest.Plain[*resource.Provider],
			error,
		) {
			return rest.Answer(r.Providers.Preview(ctx, who, in.Body))
		})
	register(a, rest.Operation(http.MethodGet, byLocation+"{location}", "getProviderByLocation",
		"Find the agent at a location"),
		func(ctx context.Context, who resource.Caller, in *struct {
			Location string `path:"location" doc:"The location, percent-encoded."`
		},
		) (*one[*resource.Provider], error) {
			return answer(r.Providers.ByLocation(ctx, who, in.Location))
		})
	register(a, rest.Operation(http.MethodGet, "/providers/{id}/variables", "getProviderVariables",
		"Read an agent's variables"),
		func(ctx context.Context, who resource.Caller, in *rest.ByID) (*rest.Plain[variables], error) {
			return asVariables(r.Providers.Variables(ctx, who, in.ID))
		})
	putVariables(a, "/providers/{id}/variables", "updateProviderVariables", "Change an agent's variables",
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
	create(a, "/provider_builds", "createProviderBuild", "Record a build", r.ProviderBuilds.Create)
	list(a, "/provider_builds", "listProviderBuilds", "List builds",
		func(ctx context.Context, who resource.Caller, in *struct {
			Paging
			Status    string `query:"status" enum:"missing,in_progress,build_completed,completed,failed"`
			UserOwned string `query:"user_owned" enum:"true,false" doc:"true: your own; false: those of others."`
		},
		) (*resource.Items[*resource.ProviderBuild], error) {
			return r.ProviderBuilds.List(ctx, who, in.page(),
				resource.ProviderBuildFilter{Status: in.Status, UserOwned: choice(in.UserOwned)})
		})
	get(a, "/provider_builds/{id}", "getProviderBuild", "Read a build", r.ProviderBuilds.Get)
	change(a, http.MethodPatch, "/provider_builds/{id}", "updateProviderBuild",
		"Report how a build goes", r.ProviderBuilds.Patch)
	remove(a, "/provider_builds/{id}", "deleteProviderBuild", "Forget a build", r.ProviderBuilds.Delete)
	register(a, rest.Operation(http.MethodPost, "/provider_builds/preview", "previewProviderBuild",
		"See what a build would be, without recording it"),
		func(_ context.Context, who resource.Caller,
			in *rest.WithBody[resource.NewProviderBuild],
		) (*rest.Plain[*resource.ProviderBuild], error) {
			return rest.Answer(r.ProviderBuilds.Preview(who, in.Body))
		})
}

func (a *api) contextRoutes() {
	r := a.Resources
	create(a, "/contexts", "createContext", "Begin a conversation", r.Contexts.Create)
	list(a, "/contexts", "listContexts", "List your conversations",
		func(ctx context.Context, who resource.Caller, in *struct {
			Paging
			ProviderID   string `query:"provider_id" format:"uuid"`
			IncludeEmpty bool   `query:"include_empty" default:"true" doc:"Also those without history."`
		},
		) (*resource.Items[*resource.Context], error) {
			return r.Contexts.List(ctx, who, in.page(),
				resource.ContextFilter{ProviderID: in.ProviderID, NotEmpty: !in.IncludeEmpty})
		})
	get(a, "/contexts/{id}", "getContext", "Read a conversation", r.Contexts.Get)
	change(a, http.MethodPut, "/contexts/{id}", "replaceContext", "Replace a conversation's metadata", r.Contexts.Put)
	change(a, http.MethodPatch, "/contexts/{id}/metadata", "updateContextMetadata", "Change a conversation's metadata",
		r.Contexts.PatchMetadata)
	remove(a, "/contexts/{id}", "deleteContext", "Delete a conversation with its files and vector stores",
		r.Contexts.Delete)

	add := rest.Operation(http.MethodPost, "/contexts/{id}/history", "addHistory", "Append an A2A message or artifact")
	add.Errors = []int{http.StatusConflict}
	add.DefaultStatus = http.StatusCreated
	register(a, add, func(ctx context.Context, who resource.Caller, in *struct {
		rest.ByID
		Body json.RawMessage
	},
	) (*made, error) {
		item, err := r.Contexts.AddHistory(ctx, who, in.ID, in.Body)
		if err != nil {
			return nil, err
		}
		return &made{Location: root + "/contexts/" + item.ContextID + "/history/" + item.ID}, nil
	})
	list(a, "/contexts/{id}/history", "listHistory", "List messages and artifacts",
		func(ctx context.Context, who resource.Caller, in *struct {
			rest.ByID
			Cut
			OrderBy string `query:"order_by" enum:"created_at" default:"created_at"`
		},
		) (*resource.Items[*resource.HistoryItem], error) {
			return r.Contexts.History(ctx, who, in.ID, in.by(in.OrderBy))
		})
	register(a, rest.Operation(http.MethodGet, "/contexts/{id}/history/{item_id}", "getHistoryItem",
		"Read a message or artifact"),
		func(ctx context.Context, who resource.Caller, in *struct {
			rest.ByID
			ItemID string `path:"item_id" format:"uuid"`
		},
		) (*rest.Plain[*resource.HistoryItem], error) {
			return rest.Answer(r.Contexts.HistoryItem(ctx, who, in.ID, in.ItemID))
		})
	register(a, rest.Operation(http.MethodDelete, "/contexts/{id}/history", "deleteHistory",
		"Remove an item and all after it"),
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
	create(a, "/vector_stores", "createVectorStore", "Make a vector store", r.VectorStores.Create)
	list(a, "/vector_stores", "listVectorStores", "List your vector stores",
		func(ctx context.Context, who resource.Caller, in *Paging) (*resource.Items[*resource.VectorStore], error) {
			return r.VectorStores.List(ctx, who, in.page())
		})
	get(a, "/vector_stores/{id}", "getVectorStore", "Read a vector store", r.VectorStores.Get)
	remove(a, "/vector_stores/{id}", "deleteVectorStore", "Delete a vector store", r.VectorStores.Delete)

	add := rest.Operation(http.MethodPut, "/vector_stores/{id}", "addVectorStoreItems", "Add items, all or none")
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
		"Find the nearest items, best first"),
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
			PageToken string `query:"page_token" maxLength:"256" doc:"The id of the last document of the page before."`
		},
		) (*resource.Items[*resource.Document], error) {
			return r.VectorStores.Documents(ctx, who, in.ID, in.PageToken)
		}))
	register(a, rest.Operation(http.MethodDelete, "/vector_stores/{id}/documents/{document_id}",
		"deleteDocument", "Remove a document"),
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
	create(a, "/model_providers", "createModelProvider", "Add a source of models", r.ModelProviders.Create)
	list(a, "/model_providers", "listModelProviders", "List sources of models",
		func(ctx context.Context, who resource.Caller, in *Paging) (*resource.Items[*resource.ModelProvider], error) {
			return r.ModelProviders.List(ctx, who, in.page())
		})
	get(a, "/model_providers/{id}", "getModelProvider", "Read a source of models", r.ModelProviders.Get)
	change(a, http.MethodPatch, "/model_providers/{id}", "updateModelProvider",
		"Change a source of models", r.ModelProviders.Patch)
	remove(a, "/model_providers/{id}", "deleteModelProvider", "Remove a source of models", r.ModelProviders.Delete)
	register(a, rest.Operation(http.MethodPost, "/model_providers/match", "matchModels",
		"Find models like those suggested, best first"),
		func(ctx context.Context, who resource.Caller,
			in *rest.WithBody[resource.ModelMatch],
		) (*rest.Plain[*resource.Items[*resource.MatchedModel]], error) {
			offer, err := r.ModelProviders.Offer(ctx, who) // may wait for others, without a place
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
		"Read the system-wide defaults"),
		func(ctx context.Context, who resource.Caller, _ *struct{}) (*one[*resource.Configuration], error) {
			return answer(r.Configurations.System(ctx, who))
		})
	set := rest.Operation(http.MethodPut, "/configurations/system", "updateConfiguration", "Set the system-wide defaults")
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
	create(a, "/connectors", "createConnector", "Link an MCP server", r.Connectors.Create)
	list(a, "/connectors", "listConnectors", "List your MCP servers",
		func(ctx context.Context, who resource.Caller, in *Paging) (*resource.Items[*resource.Connector], error) {
			return r.Connectors.List(ctx, who, in.page())
		})
	get(a, "/connectors/{id}", "getConnector", "Read a link", r.Connectors.Get)
	remove(a, "/connectors/{id}", "deleteConnector", "Remove a link", r.Connectors.Delete)
	list(a, "/connectors/presets", "listConnectorPresets", "List MCP servers that are offered",
		func(context.Context, resource.Caller, *struct{}) (*resource.Items[resource.Preset], error) {
			return r.Connectors.Presets(), nil
		})
	connect := rest.Operation(http.MethodPost, "/connectors/{id}/connect", "connect", "Connect to the MCP server")
	connect.Errors = []int{http.StatusBadGateway, http.StatusGatewayTimeout}
	register(a, connect,
		func(ctx context.Context, who resource.Caller, in *struct {
			rest.ByID
			Body *resource.Connection
		},
		) (*one[*resource.Connector], error) {
			return answer(r.Connectors.Connect(ctx, who, in.ID, in.Body))
		})
	disconnect := rest.Operation(http.MethodPost, "/connectors/{id}/disconnect", "disconnect", "End the connection")
	disconnect.Errors = []int{http.StatusConflict}
	register(a, disconnect,
		func(ctx context.Context, who resource.Caller, in *rest.ByID) (*one[*resource.Connector], error) {
			return answer(r.Connectors.Disconnect(ctx, who, in.ID))
		})
}

func (a *api) userRoutes() {
	r := a.Resources
	for path, id := range map[string]string{"/users/me": "getMe", "/user": "getUser"} {
		op := rest.Operation(http.MethodGet, path, id, "Who you are")
		op.Tags = []string{"users"}
		register(a, op, func(ctx context.Context, who resource.Caller, _ *struct{}) (*one[*resource.User], error) {
			return answer(r.Users.Me(ctx, who))
		})
	}
	list(a, "/users", "listUsers", "List users", func(ctx context.Context, who resource.Caller, in *struct {
		Paging
		Email string `query:"email" doc:"A part of the e-mail address."`
	},
	) (*resource.Items[*resource.User], error) {
		return r.Users.List(ctx, who, in.page(), in.Email)
	})
	get(a, "/users/{id}", "getUserByID", "Read a user", r.Users.Get)
	change(a, http.MethodPatch, "/users/{id}", "updateUser", "Change a user's role", r.Users.Patch)
	remove(a, "/users/{id}", "deleteUser", "Delete a user and all that they own", r.Users.Delete)
	register(a, rest.Operation(http.MethodGet, "/variables", "getVariables", "Read your variables"),
		func(ctx context.Context, who resource.Caller, _ *struct{}) (*rest.Plain[variables], error) {
			return asVariables(r.Users.Variables(ctx, who))
		})
	putVariables(a, "/variables", "updateVariables", "Change your variables",
		func(ctx context.Context, who resource.Caller, in *rest.WithBody[variableChanges]) error {
			return r.Users.PutVariables(ctx, who, in.Body.Variables)
		})
}

func (a *api) userFeedbackRoutes() {
	r := a.Resources
	say := rest.Operation(http.MethodPost, "/user_feedback", "createUserFeedback", "Say what you think of an answer")
	say.DefaultStatus = http.StatusCreated
	say.Errors = []int{http.StatusConflict}
	register(a, say,
		func(ctx context.Context, who resource.Caller, in *rest.WithBody[resource.NewUserFeedback]) (*made, error) {
			row, err := r.UserFeedback.Create(ctx, who, in.Body)
			if err != nil {
				return nil, err
			}
			return &made{Location: root + "/user_feedback/" + row.ID}, nil
		})
	list(a, "/user_feedback", "listUserFeedback", "List feedback",
		func(ctx context.Context, who resource.Caller, in *struct {
			Paging
			ProviderID  string `query:"provider_id" format:"uuid"`
			AfterCursor string `query:"after_cursor" format:"uuid" doc:"Another name of page_token."`
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
	get(a, "/user_feedback/{id}", "getUserFeedback", "Read feedback", r.UserFeedback.Get)
	remove(a, "/user_feedback/{id}", "deleteUserFeedback", "Delete feedback", r.UserFeedback.Delete)
}
