#!/bin/sh
# Make docker/secrets: random passwords, and the addresses that contain them. Keeps what is there.
set -eu
umask 077
cd "$(dirname "$0")"
mkdir -p secrets
cd secrets
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
write() { [ -e "$1" ] || printf '%s\n' "$2" > "$1"; }

write postgres_password "$(random)"
write redis_password "$(random)"
write s3_secret_key "$(random)"
write mlhf_database_url "postgresql+psycopg://mlhf:$(cat postgres_password)@postgresql:5432/mlhf"
write mlhf_broker_url "redis://:$(cat redis_password)@redis:6379/0"
write s3_credentials "[default]
aws_access_key_id = mlhf
aws_secret_access_key = $(cat s3_secret_key)"
write s3.json "{\"identities\": [{\"name\": \"mlhf\", \"actions\": [\"Admin\"], \"credentials\": \
[{\"accessKey\": \"mlhf\", \"secretKey\": \"$(cat s3_secret_key)\"}]}]}"
# Compose mounts these files as they are: the containers' users must be able to read them.
chmod 755 .
chmod 644 ./*
echo "docker/secrets is complete. Keep it out of version control."
