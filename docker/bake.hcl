# All images for both platforms: docker buildx bake -f docker/bake.hcl [--push]
variable "REGISTRY" { default = "" }
variable "TAG" { default = "latest" }
variable "PYTHON_BUILD" { default = "python:3.11-bookworm" }
variable "PYTHON_SLIM" { default = "python:3.11-slim-bookworm" }

group "default" { targets = ["api", "worker-cpu", "worker-gpu"] }

target "image" {
  name       = role
  matrix     = { role = ["api", "worker-cpu", "worker-gpu"] }
  context    = "."
  dockerfile = "docker/Dockerfile"
  target     = role
  platforms  = ["linux/amd64", "linux/arm64"]
  tags       = ["${REGISTRY}mlhf-${role}:${TAG}"]
  args = {
    PYTHON_BUILD = PYTHON_BUILD
    PYTHON_SLIM  = PYTHON_SLIM
  }
}
