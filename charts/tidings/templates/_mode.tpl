{{/* What follows from the database: "true" or nothing. */}}

{{- define "tidings.postgres" -}}
{{- if or .Values.database.url .Values.database.existingSecret -}}true{{- end -}}
{{- end -}}

{{/* Whether there may be several pods for longer than an update takes. */}}
{{- define "tidings.several" -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) -}}true{{- end -}}
{{- end -}}

{{/* Whether file contents are in an S3 store, so that the data folder holds nothing that lasts. */}}
{{- define "tidings.s3" -}}
{{- if and (include "tidings.postgres" .) (dig "files" "s3" "bucket" "" (.Values.config | default dict)) -}}true{{- end -}}
{{- end -}}

{{/* Whether the data folder is on a volume. */}}
{{- define "tidings.claimed" -}}
{{- if and .Values.persistence.enabled (not (include "tidings.s3" .)) -}}true{{- end -}}
{{- end -}}

{{- define "tidings.claim" -}}
{{- .Values.persistence.existingClaim | default (include "tidings.fullname" .) -}}
{{- end -}}

{{/* What a claim that is there allows can't be changed. */}}
{{- define "tidings.accessModes" -}}
{{- $claim := lookup "v1" "PersistentVolumeClaim" .Release.Namespace (include "tidings.claim" .) | default dict -}}
{{- $default := ternary "ReadWriteMany" "ReadWriteOnce" (eq (include "tidings.postgres" .) "true") -}}
{{- .Values.persistence.accessModes | default (dig "spec" "accessModes" (list) $claim) | default (list $default) | toJson -}}
{{- end -}}

{{/* Whether two pods can have the data folder at once, so that an update has no gap. */}}
{{- define "tidings.shared" -}}
{{- $many := has "ReadWriteMany" (include "tidings.accessModes" . | fromJsonArray) -}}
{{- if and (include "tidings.postgres" .) (or $many (not (include "tidings.claimed" .))) -}}true{{- end -}}
{{- end -}}

{{/* A section whose lines are all commented out is null; what comes of that is hard to read. */}}
{{- define "tidings.sections" -}}
{{- range list "webhook" "database" "admin" "persistence" "autoscaling" "image" "service" -}}
{{- if not (kindIs "map" (index $.Values .)) -}}
{{- fail (printf "%s: nothing stands below it. Leave the line out, or fill it in" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Values that are right one by one, and wrong together. */}}
{{- define "tidings.validate" -}}
{{- if and (include "tidings.several" .) (not (include "tidings.postgres" .)) -}}
{{- fail "replicas, autoscaling: SQLite has one process. For several pods set database.url or database.existingSecret to a PostgreSQL; for SQLite set replicas: 1 and autoscaling.enabled: false" -}}
{{- end -}}
{{- if and (include "tidings.several" .) (not (include "tidings.s3" .)) -}}
{{- if not .Values.persistence.enabled -}}
{{- fail "persistence.enabled: without a volume each pod would have file contents of its own. Set it to true, or config.files.s3, or replicas: 1" -}}
{{- else if not (include "tidings.shared" .) -}}
{{- fail (printf "persistence.accessModes: several pods read the file contents, which %s does not allow. Have a volume that is [ReadWriteMany], or set config.files.s3, or replicas: 1" (include "tidings.accessModes" .)) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.database.url .Values.database.existingSecret -}}
{{- fail "database: url and existingSecret are both set; one of them is enough" -}}
{{- end -}}
{{- if and .Values.webhook.endpoints .Values.webhook.existingSecret -}}
{{- fail "webhook: endpoints and existingSecret are both set, and those of the Secret would win. Put all of them in one place" -}}
{{- end -}}
{{- $config := .Values.config | default dict -}}
{{- if $config.webhook -}}
{{- fail "config.webhook: the key webhook has a place of its own. Move it out of config" -}}
{{- end -}}
{{- if $config.database_url -}}
{{- fail "config.database_url: set database.url or database.existingSecret instead" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.hosts: name at least one host" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs: name at least one gateway" -}}
{{- end -}}
{{- end -}}
