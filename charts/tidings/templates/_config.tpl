{{/*
The configuration file, as JSON, which is also YAML: toYaml would write large numbers
as 1e+08. The server knows by the first line that settings come from values.
*/}}
{{- define "tidings.config" -}}
# Helm values of release {{ .Release.Name }}
{{ include "tidings.settings" . | fromJson | toPrettyJson -}}
{{- end -}}

{{/* The settings as JSON, with references to Secrets replaced by files. */}}
{{- define "tidings.settings" -}}
{{- $text := include "tidings.settingsWithRefs" . -}}
{{- $text = regexReplaceAll (printf `"([a-z_]+_file)":%s` (include "tidings.ref" .)) $text `"${1}":"/etc/tidings-secrets/${3}/${2}"` -}}
{{- $text = regexReplaceAll (include "tidings.ref" .) $text `{"file":"/etc/tidings-secrets/${2}/${1}"}` -}}
{{- if contains `"secretRef":` $text -}}
{{- fail "secretRef: expected {name: SECRET, key: KEY} and no other keys" -}}
{{- end -}}
{{- $text -}}
{{- end -}}

{{/* A reference to a Secret, as JSON: key, name. */}}
{{- define "tidings.ref" -}}
\{"secretRef":\{"key":"([-._a-zA-Z0-9]+)","name":"([-.a-z0-9]+)"\}\}
{{- end -}}

{{/* The names of all referenced Secrets, as a JSON list. */}}
{{- define "tidings.secrets" -}}
{{- $names := list -}}
{{- range regexFindAll (include "tidings.ref" .) (include "tidings.settingsWithRefs" .) -1 -}}
{{- $names = append $names (regexReplaceAll (include "tidings.ref" $) . "${2}") -}}
{{- end -}}
{{- $names | uniq | sortAlpha | toJson -}}
{{- end -}}

{{- define "tidings.settingsWithRefs" -}}
{{- $config := mergeOverwrite (dict "listen" ":8333" "data_dir" "/var/lib/tidings" "shutdown_delay" "5s") (deepCopy (.Values.config | default dict)) -}}
{{- $webhook := omit .Values.webhook "existingSecret" "existingSecretKey" "endpointFilesFrom" -}}
{{- if .Values.webhook.existingSecret -}}
{{- $webhook = omit $webhook "endpoints" -}}
{{- end -}}
{{- if .Values.webhook.endpointFilesFrom -}}
{{- $_ := set $webhook "endpoint_files" (append ($webhook.endpoint_files | default list) "/etc/tidings-endpoints/*/*.yaml") -}}
{{- end -}}
{{- $_ := set $config "webhook" $webhook -}}
{{- if .Values.database.existingSecret -}}
{{- $_ := set $config "database_url" (dict "file" "/etc/tidings/database-url") -}}
{{- else if .Values.database.url -}}
{{- $_ := set $config "database_url" .Values.database.url -}}
{{- end -}}
{{- $admin := dict "token" (dict "file" "/etc/tidings/admin-token") "user" .Values.admin.user "role" "admin" -}}
{{- $auth := $config.auth | default dict -}}
{{- if not $auth.disabled -}}
{{- $_ := set $auth "tokens" (append ($auth.tokens | default list) $admin) -}}
{{- end -}}
{{- $_ := set $config "auth" $auth -}}
{{- toJson $config -}}
{{- end -}}

{{/* Settings that take effect only after a restart: changing them must replace the pods. */}}
{{- define "tidings.restartSettings" -}}
{{- $config := include "tidings.settings" . | fromJson -}}
{{- $_ := set $config "auth" (omit $config.auth "tokens" "admin_emails") -}}
{{- $_ := set $config "log" (omit ($config.log | default dict) "level") -}}
{{- omit $config "webhook" | toJson -}}
{{- end -}}

{{- define "tidings.port" -}}
{{- (include "tidings.settings" . | fromJson).listen | regexFind "[0-9]+$" | default "8333" -}}
{{- end -}}

{{- define "tidings.dataDir" -}}
{{- (include "tidings.settings" . | fromJson).data_dir -}}
{{- end -}}

{{/* The arguments with the configuration files. */}}
{{- define "tidings.configArgs" -}}
- --config=/etc/tidings/tidings.yaml
{{- if .Values.webhook.existingSecret }}
- --config=/etc/tidings/webhook.yaml
{{- end }}
{{- end -}}

{{/* The data of the Secret; the check has its own copy, because it runs earlier. */}}
{{- define "tidings.secretData" -}}
tidings.yaml: {{ include "tidings.config" . | b64enc }}
{{- if not .Values.admin.existingSecret }}
admin-token: {{ include "tidings.adminToken" . | b64enc }}
{{- end }}
{{- end -}}

{{/* The existing token, or a new one. */}}
{{- define "tidings.adminToken" -}}
{{- $old := lookup "v1" "Secret" .Release.Namespace (include "tidings.fullname" .) | default dict -}}
{{- with dig "data" "admin-token" "" $old -}}
{{- b64dec . -}}
{{- else -}}
{{- printf "tdg_%s" (randAlphaNum 32) -}}
{{- end -}}
{{- end -}}

{{/* The volumes with the configuration, given the name of its Secret. */}}
{{- define "tidings.configVolumes" -}}
{{- $values := .root.Values -}}
- name: config
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ .secret }}
      {{- with $values.webhook.existingSecret }}
      - secret:
          name: {{ . }}
          items: [{key: {{ $values.webhook.existingSecretKey | quote }}, path: webhook.yaml}]
      {{- end }}
      {{- with $values.database.existingSecret }}
      - secret:
          name: {{ . }}
          items: [{key: {{ $values.database.existingSecretKey | quote }}, path: database-url}]
      {{- end }}
      {{- with $values.admin.existingSecret }}
      - secret:
          name: {{ . }}
          items: [{key: {{ $values.admin.existingSecretKey | quote }}, path: admin-token}]
      {{- end }}
{{- range $i, $name := include "tidings.secrets" .root | fromJsonArray }}
- name: secret-{{ $i }}
  secret:
    secretName: {{ $name }}
    defaultMode: 0440
{{- end }}
{{- range $i, $from := $values.webhook.endpointFilesFrom }}
- name: endpoints-{{ $i }}
  {{- with $from.configMap }}
  configMap: {name: {{ . }}, optional: true}
  {{- end }}
  {{- with $from.secret }}
  secret: {secretName: {{ . }}, optional: true, defaultMode: 0440}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "tidings.configMounts" -}}
- {name: config, mountPath: /etc/tidings, readOnly: true}
{{- range $i, $name := include "tidings.secrets" . | fromJsonArray }}
- {name: secret-{{ $i }}, mountPath: /etc/tidings-secrets/{{ $name }}, readOnly: true}
{{- end }}
{{- range $i, $from := .Values.webhook.endpointFilesFrom }}
- name: endpoints-{{ $i }}
  mountPath: /etc/tidings-endpoints/{{ if $from.configMap }}configmap-{{ $from.configMap }}{{ else }}secret-{{ $from.secret }}{{ end }}
  readOnly: true
{{- end }}
{{- end -}}
