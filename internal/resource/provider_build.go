package resource

import (
	"context"
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/uptrace/bun"

	"github.com/tidings-dev/tidings/internal/store"
)

// The statuses of a build.
//
//	missing ──► in_progress ──► build_completed ──► completed
//	   └──────────────┴────────────────┴──► failed
const (
	buildMissing    = "missing"
	buildInProgress = "in_progress"
	buildCompleted  = "build_completed"
	buildDone       = "completed"
	buildFailed     = "failed"
)

var buildSteps = map[string][]string{
	buildMissing:    {buildInProgress, buildFailed},
	buildInProgress: {buildCompleted, buildFailed},
	buildCompleted:  {buildDone, buildFailed},
}

// ProviderBuild records the build of an image from a Git repository. An
// external builder builds it and reports the status.
type ProviderBuild struct {
	bun.BaseModel `bun:"table:provider_builds"`
	Base

	Status             string             `json:"status" enum:"missing,in_progress,build_completed,completed,failed"`
	Source             BuildSource        `bun:"type:json" json:"source"`
	OnComplete         OnComplete         `bun:"type:json" json:"on_complete"`
	BuildConfiguration BuildConfiguration `bun:"type:json" json:"build_configuration"`
	ProviderID         *string            `json:"provider_id" format:"uuid"`
	ProviderOrigin     string             `bun:"-" json:"provider_origin" doc:"The repository without the version."`
	Destination        string             `json:"destination" doc:"The image; empty until the builder reports it."`
	ErrorMessage       *string            `json:"error_message"`
}

// MarshalJSON adds the derived fields.
func (b *ProviderBuild) MarshalJSON() ([]byte, error) {
	type plain ProviderBuild
	shown := plain(*b)
	shown.ProviderOrigin = b.Source.origin()
	return json.Marshal(&shown)
}

// BuildSource is a version of a Git repository, or of a directory in it.
type BuildSource struct {
	Host        string  `json:"host"`
	Org         string  `json:"org"`
	Repo        string  `json:"repo"`
	Version     string  `json:"version" doc:"A branch, tag or commit; defaults to HEAD."`
	VersionType string  `json:"version_type" enum:"head,tag"`
	CommitHash  string  `json:"commit_hash" doc:"From the location or reported by the builder; empty until known."`
	Path        *string `json:"path"`
}

// origin returns the repository without the version.
func (s BuildSource) origin() string {
	origin := "git+https://" + s.Host + "/" + s.Org + "/" + s.Repo
	if s.Path != nil {
		origin += "#path=" + *s.Path
	}
	return origin
}

// isCommit matches SHA-1 and SHA-256 commit hashes.
var isCommit = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`).MatchString

// OnComplete is the action after a build.
type OnComplete struct {
	Type string `json:"type" enum:"no_action"`
}

// BuildConfiguration is the build's configuration.
type BuildConfiguration struct {
	DockerfilePath *string `json:"dockerfile_path" required:"false" maxLength:"1024"`
}

// ProviderBuilds is the type of the build records.
type ProviderBuilds struct {
	*collection[*ProviderBuild]
	providers *Providers
}

func newProviderBuilds(providers *Providers) *ProviderBuilds {
	return &ProviderBuilds{providers: providers, collection: newCollection(kind[*ProviderBuild]{
		Type:   ProviderBuildType,
		URL:    "/api/v1/provider_builds/{id}",
		New:    func() *ProviderBuild { return new(ProviderBuild) },
		policy: published(RoleDeveloper),
		References: []reference[*ProviderBuild]{
			{To: ProviderType, Column: "provider_id", Clear: func(b *ProviderBuild) { b.ProviderID = nil }},
		},
		EventsAsOwner: true,
	})}
}

// Get returns a build.
func (b *ProviderBuilds) Get(ctx context.Context, who Caller, id string) (*ProviderBuild, error) {
	return b.get(ctx, who, id)
}

// Delete deletes a build. ifMatch is the expected version, or 0 for any.
func (b *ProviderBuilds) Delete(ctx context.Context, who Caller, id string, ifMatch int64) error {
	return b.delete(ctx, who, id, ifMatch)
}

// NewProviderBuild is a request to record a build.
type NewProviderBuild struct {
	Location           string              `json:"location" maxLength:"2048" doc:"A Git URL: https://github.com/org/repo, optionally with @version and #path=folder."`
	OnComplete         *OnComplete         `json:"on_complete" required:"false"`
	BuildConfiguration *BuildConfiguration `json:"build_configuration" required:"false"`
}

// Preview returns the build that [ProviderBuilds.Create] would record.
func (b *ProviderBuilds) Preview(who Caller, in NewProviderBuild) (*ProviderBuild, error) {
	if err := b.kind.permit(who, creating); err != nil {
		return nil, err
	}
	source, err := parseBuildSource(in.Location)
	if err != nil {
		return nil, err
	}
	at := now()
	row := &ProviderBuild{
		Base:   Base{ID: newID(), CreatedBy: &who.UserID, CreatedAt: at, UpdatedAt: at},
		Status: buildMissing, Source: source, OnComplete: OnComplete{Type: "no_action"},
	}
	if in.BuildConfiguration != nil {
		row.BuildConfiguration = *in.BuildConfiguration
	}
	return row, nil
}

// Create records a build.
func (b *ProviderBuilds) Create(ctx context.Context, who Caller, in NewProviderBuild) (*ProviderBuild, error) {
	row, err := b.Preview(who, in)
	if err != nil {
		return nil, err
	}
	return b.create(ctx, who, row)
}

func parseBuildSource(location string) (BuildSource, error) {
	wrong := fail(Invalid, "location",
		"expected a Git URL such as https://github.com/org/repo, optionally with @version and #path=folder")
	u, err := url.Parse(strings.TrimPrefix(location, "git+"))
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return BuildSource{}, wrong
	}
	org, repo, _ := strings.Cut(strings.Trim(u.Path, "/"), "/")
	source := BuildSource{Host: u.Host, Org: org, Version: "HEAD", VersionType: "head"}
	repo, version, versioned := strings.Cut(repo, "@")
	source.Repo = strings.TrimSuffix(repo, ".git")
	if versioned {
		source.Version = version
	}
	if isCommit(version) {
		source.CommitHash = version
	}
	if u.Fragment != "" {
		path, ok := strings.CutPrefix(u.Fragment, "path=")
		if !ok || path == "" {
			return BuildSource{}, wrong
		}
		source.Path = &path
	}
	if org == "" || source.Repo == "" || strings.Contains(source.Repo, "/") || (versioned && version == "") {
		return BuildSource{}, wrong
	}
	return source, nil
}

// ProviderBuildPatch is a builder's report; omitted or null members stay
// unchanged.
type ProviderBuildPatch struct {
	Status       *string `json:"status" required:"false" enum:"in_progress,build_completed,completed,failed"`
	ErrorMessage *string `json:"error_message" required:"false" maxLength:"10000" doc:"Required if the status is failed; otherwise not allowed."`
	ProviderID   *string `json:"provider_id" required:"false" format:"uuid" doc:"The resulting provider."`
	VersionType  *string `json:"version_type" required:"false" enum:"head,tag" doc:"Whether the version is a branch or a tag."`
	CommitHash   *string `json:"commit_hash" required:"false" pattern:"^([0-9a-f]{40}|[0-9a-f]{64})$" doc:"The commit being built."`
	Destination  *string `json:"destination" required:"false" minLength:"1" maxLength:"512" doc:"The image."`
}

// Patch records a builder's report.
func (b *ProviderBuilds) Patch(
	ctx context.Context, who Caller, id string, ifMatch int64, in ProviderBuildPatch,
) (*ProviderBuild, error) {
	return b.update(ctx, who, id, ifMatch, func(tx *store.Tx, row *ProviderBuild) (bool, error) {
		before := row.ProviderID
		if err := in.apply(row); err != nil || same(before, row.ProviderID) {
			return false, err
		}
		_, err := b.providers.lockNamed(ctx, tx, who, *row.ProviderID)
		return false, err
	})
}

func (in *ProviderBuildPatch) apply(b *ProviderBuild) error {
	if in.Status != nil && *in.Status != b.Status {
		if !slices.Contains(buildSteps[b.Status], *in.Status) {
			return fail(Conflict, "status", "a build that is %s cannot become %s", b.Status, *in.Status)
		}
		b.Status = *in.Status
	}
	if in.ErrorMessage != nil {
		if b.Status != buildFailed {
			return fail(Invalid, "error_message", "only a failed build may have an error message; this one is %s",
				b.Status)
		}
		b.ErrorMessage = in.ErrorMessage
	}
	if b.Status == buildFailed && b.ErrorMessage == nil {
		return fail(Invalid, "error_message", "required for a failed build")
	}
	if in.VersionType != nil {
		b.Source.VersionType = *in.VersionType
	}
	if in.CommitHash != nil {
		b.Source.CommitHash = *in.CommitHash
	}
	if in.Destination != nil {
		b.Destination = *in.Destination
	}
	if in.ProviderID != nil {
		b.ProviderID = in.ProviderID
	}
	return nil
}

// ProviderBuildFilter filters a list of builds. UserOwned selects the caller's
// own (true) or those of others (false).
type ProviderBuildFilter struct {
	Status    string
	UserOwned *bool
}

// List returns a page of the builds.
func (b *ProviderBuilds) List(
	ctx context.Context, who Caller, page Page, in ProviderBuildFilter,
) (*Items[*ProviderBuild], error) {
	filters := ownedFilter(who, in.UserOwned)
	if in.Status != "" {
		filters = append(filters, equal("status", in.Status))
	}
	return b.list(ctx, who, page, filters...)
}
