#!/bin/sh
# Write docker/images.env: every image that is not ours, by the digest its tag has today.
#
#   docker/pin.sh                                         (asks the images' registries)
#   set -a; . docker/images.env; set +a                   (for bake)
#   docker compose --env-file docker/images.env -f docker/compose.yaml up
set -eu
cd "$(dirname "$0")"
pin() {
  digest=$(docker buildx imagetools inspect "$2" --format '{{.Manifest.Digest}}')
  echo "$1=$2@$digest"
}
{
  pin PYTHON_BUILD python:3.11-bookworm
  pin PYTHON_SLIM python:3.11-slim-bookworm
  pin POSTGRES_IMAGE postgres:17-bookworm
  pin REDIS_IMAGE redis:7-bookworm
  pin S3_IMAGE chrislusf/seaweedfs:4.48
} > images.env.new
mv images.env.new images.env
cat images.env
