{{- define "mlhf.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "mlhf.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "mlhf.labels" -}}
{{ include "mlhf.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* An image: (dict "root" $ "name" "mlhf-api" "digest" "") */}}
{{- define "mlhf.image" -}}
{{- $registry := .root.Values.image.registry | trimSuffix "/" -}}
{{- if $registry }}{{ $registry }}/{{ end }}{{ .name }}
{{- if .digest }}@{{ .digest }}{{ else }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "mlhf.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "mlhf.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "mlhf.environment" -}}
- {name: MLHF_AUTH, value: keys}
- {name: MLHF_SECRETS_DIR, value: /run/secrets/mlhf}
- {name: MLHF_ARTIFACTS_URL, value: {{ .Values.artifacts.url | quote }}}
- {name: MLHF_GRACE_SECONDS, value: {{ .Values.graceSeconds | quote }}}
{{- if .Values.allowedHosts }}
- {name: MLHF_ALLOWED_HOSTS, value: {{ join "," .Values.allowedHosts | quote }}}
{{- end }}
{{- if .Values.datasets.existingClaim }}
- {name: MLHF_DATASETS_DIR, value: /datasets}
{{- end }}
{{- if hasPrefix "s3://" .Values.artifacts.url }}
- {name: AWS_REGION, value: {{ .Values.artifacts.region | quote }}}
{{- with .Values.artifacts.endpoint }}
- {name: AWS_ENDPOINT_URL, value: {{ . | quote }}}
{{- end }}
{{- if .Values.secrets.s3Credentials.name }}
- {name: AWS_SHARED_CREDENTIALS_FILE, value: /run/secrets/mlhf/s3_credentials}
{{- end }}
{{- end }}
{{- with .Values.tracing.endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- range $name, $value := .Values.settings }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{- define "mlhf.mounts" -}}
- {name: secrets, mountPath: /run/secrets/mlhf, readOnly: true}
- {name: data, mountPath: /data}
- {name: tmp, mountPath: /tmp}
{{- if .Values.datasets.existingClaim }}
- {name: datasets, mountPath: /datasets, readOnly: true}
{{- end }}
{{- end }}

{{/* Volumes: (dict "root" $ "scratch" "20Gi") */}}
{{- define "mlhf.volumes" -}}
{{- $values := .root.Values -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ $values.secrets.databaseUrl.name }}
          items: [{key: {{ $values.secrets.databaseUrl.key }}, path: mlhf_database_url}]
      - secret:
          name: {{ $values.secrets.brokerUrl.name }}
          items: [{key: {{ $values.secrets.brokerUrl.key }}, path: mlhf_broker_url}]
      {{- if $values.secrets.s3Credentials.name }}
      - secret:
          name: {{ $values.secrets.s3Credentials.name }}
          items: [{key: {{ $values.secrets.s3Credentials.key }}, path: s3_credentials}]
      {{- end }}
- name: data
  emptyDir:
    sizeLimit: {{ .scratch }}
- name: tmp
  emptyDir:
    sizeLimit: 1Gi
{{- if $values.datasets.existingClaim }}
- name: datasets
  persistentVolumeClaim:
    claimName: {{ $values.datasets.existingClaim }}
    readOnly: true
{{- end }}
{{- end }}
