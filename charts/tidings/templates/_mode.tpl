{{/* Whether the database is PostgreSQL: "true" or empty, as in all templates here. */}}

{{- define "tidings.postgres" -}}
{{- if or .Values.database.url .Values.database.existingSecret -}}true{{- end -}}
{{- end -}}

{{/* Whether several pods may run, not only during an update. */}}
{{- define "tidings.several" -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) -}}true{{- end -}}
{{- end -}}

{{/* Whether "tidings relay" runs, beside an application, instead of "tidings serve". */}}
{{- define "tidings.relay" -}}
{{- if .Values.relay.enabled -}}true{{- end -}}
{{- end -}}

{{/* Whether the configuration names tables of an application. */}}
{{- define "tidings.tables" -}}
{{- $config := .Values.config | default dict -}}
{{- if or $config.preset (dig "tables" dict ($config.sources | default dict)) -}}true{{- end -}}
{{- end -}}

{{/* Whether a job installs the triggers on these tables. */}}
{{- define "tidings.attach" -}}
{{- if and (include "tidings.relay" .) (include "tidings.tables" .) .Values.relay.attach -}}true{{- end -}}
{{- end -}}

{{/*
Whether the data directory holds nothing persistent: events are in PostgreSQL, and files,
which a relay does not have, in an S3 store.
*/}}
{{- define "tidings.stateless" -}}
{{- $noFiles := or (include "tidings.relay" .) (dig "files" "s3" "bucket" "" (.Values.config | default dict)) -}}
{{- if and (include "tidings.postgres" .) $noFiles -}}true{{- end -}}
{{- end -}}

{{/* Whether the data directory is on a volume. */}}
{{- define "tidings.claimed" -}}
{{- if and .Values.persistence.enabled (not (include "tidings.stateless" .)) -}}true{{- end -}}
{{- end -}}

{{- define "tidings.claim" -}}
{{- .Values.persistence.existingClaim | default (include "tidings.fullname" .) -}}
{{- end -}}

{{/* The access modes of an existing claim can't be changed. */}}
{{- define "tidings.accessModes" -}}
{{- $claim := lookup "v1" "PersistentVolumeClaim" .Release.Namespace (include "tidings.claim" .) | default dict -}}
{{- $default := ternary "ReadWriteMany" "ReadWriteOnce" (eq (include "tidings.postgres" .) "true") -}}
{{- .Values.persistence.accessModes | default (dig "spec" "accessModes" (list) $claim) | default (list $default) | toJson -}}
{{- end -}}

{{/* Whether two pods can share the data directory, so that an update has no downtime. */}}
{{- define "tidings.shared" -}}
{{- $many := has "ReadWriteMany" (include "tidings.accessModes" . | fromJsonArray) -}}
{{- if and (include "tidings.postgres" .) (or $many (not (include "tidings.claimed" .))) -}}true{{- end -}}
{{- end -}}

{{/* A section whose lines are all commented out is null, which leads to obscure errors. */}}
{{- define "tidings.sections" -}}
{{- range list "webhook" "relay" "database" "admin" "persistence" "autoscaling" "image" "service" -}}
{{- if not (kindIs "map" (index $.Values .)) -}}
{{- fail (printf "%s: the section is empty. Remove the line or add settings below it" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Values that are valid individually but not together. */}}
{{- define "tidings.validate" -}}
{{- if and (include "tidings.several" .) (not (include "tidings.postgres" .)) -}}
{{- fail "replicas, autoscaling: SQLite supports only one pod. For several, configure PostgreSQL in database.url or database.existingSecret; for SQLite, set replicas: 1 and autoscaling.enabled: false" -}}
{{- end -}}
{{- if and (include "tidings.several" .) (not (include "tidings.stateless" .)) -}}
{{- if not .Values.persistence.enabled -}}
{{- fail "persistence.enabled: without a volume, pods would not share file contents. Set it to true, or set config.files.s3 or replicas: 1" -}}
{{- else if not (include "tidings.shared" .) -}}
{{- fail (printf "persistence.accessModes: several pods read the file contents, which %s does not allow. Use a [ReadWriteMany] volume, or set config.files.s3 or replicas: 1" (include "tidings.accessModes" .)) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.database.url .Values.database.existingSecret -}}
{{- fail "database: set either url or existingSecret, not both" -}}
{{- end -}}
{{- if and .Values.webhook.endpoints .Values.webhook.existingSecret -}}
{{- fail "webhook: set either endpoints or existingSecret, not both; the Secret would override the endpoints" -}}
{{- end -}}
{{- $config := .Values.config | default dict -}}
{{- if $config.webhook -}}
{{- fail "config.webhook: move webhook out of config to the top level" -}}
{{- end -}}
{{- if $config.database_url -}}
{{- fail "config.database_url: set database.url or database.existingSecret instead" -}}
{{- end -}}
{{- if or $config.preset $config.sources -}}
{{- if not (include "tidings.relay" .) -}}
{{- fail "relay.enabled: config.preset and config.sources require it to be true; without it, the chart runs a server with its own resources" -}}
{{- end -}}
{{- if and (include "tidings.tables" .) (not (include "tidings.postgres" .)) -}}
{{- fail "database: config.preset and config.sources.tables require the application's PostgreSQL database in database.url or database.existingSecret" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.hosts: at least one host is required" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs: at least one gateway is required" -}}
{{- end -}}
{{- end -}}
