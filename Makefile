# The verbs of this project; CI calls exactly these.
SHELL := /bin/bash
UV := .cache/uv/bin/uv
PYTHON := .venv/bin/python
CODE := crds/src pod_common/src operator/src trainer_image/src serving_image/src tests
export PYTHONPATH := tests
export PYTHONDONTWRITEBYTECODE := 1

.DEFAULT_GOAL := help
.PHONY: help demo test check generate keep-release bench bench-operator bench-training bench-serving bench-gpu e2e escalations fuzz faults soak \
  audit sbom cluster-up cluster-down clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

demo: .venv/ready ## the whole loop on a real cluster: train, prove, serve, ask (CLUSTER=current uses yours)
	@$(PYTHON) examples/support-bot/demo.py

test: .venv/ready ## every tier of the tests
	@$(PYTHON) tests/run.py

check: .venv/ready ## formatting, lint, types, import contracts, generated files
	@.venv/bin/ruff format --check --quiet . || { echo "run: .venv/bin/ruff format ."; exit 1; }
	@.venv/bin/ruff check --quiet .
	@.venv/bin/mypy $(CODE) examples
	@.venv/bin/lint-imports
	@.venv/bin/yamllint -s -d '{extends: relaxed, rules: {line-length: disable}}' crds charts/finetune-operator/*.yaml charts/finetune-operator/files examples
	@generated=$$(mktemp -d) && trap 'rm -rf "$$generated"' EXIT && $(PYTHON) -m finetune_api.crd "$$generated" \
	  && for directory in crds charts/finetune-operator/files/crds; do for file in "$$generated"/*; do \
	    diff -u "$$directory/$$(basename $$file)" "$$file" || { echo "run: make generate"; exit 1; }; done; done

generate: .venv/ready ## write the CustomResourceDefinitions, and what vLLM serves no adapters for
	@$(PYTHON) -m finetune_serving.architectures pod_common/src/finetune_pod/architectures.py
	@$(PYTHON) -m finetune_api.crd crds charts/finetune-operator/files/crds

keep-release: ## keep the commit that is checked out as the release that the next is upgraded from
	@python3 tests/upgrade/keep.py

bench: .venv/ready ## what a decision of the operator costs, as JSON
	@$(PYTHON) -m bench planning

bench-operator: .venv/ready ## thousands of FineTuneJobs on a real API server: speed, writes, restart, idleness, as JSON (half an hour)
	@$(PYTHON) -m bench operator

bench-training: .venv/ready ## training against a plain TRL script, and a million rows prepared, as JSON
	@$(PYTHON) -m bench training

bench-serving: .venv/ready ## our plugin against bare vLLM, adapters beside each other, rollouts on a cluster, as JSON
	@$(PYTHON) -m bench serving

bench-gpu: .venv/ready ## training on one GPU, LoRA and QLoRA, as JSON
	@$(PYTHON) -m bench gpu

fuzz: .venv/ready ## generated objects, mutations of live ones and hostile pods, counted as JSON (FUZZ='--seed 7 --only gates')
	@$(PYTHON) -m fuzz $(FUZZ)

faults: .venv/ready ## every kind of fault between operator and API server in every lifecycle, counted as JSON (FAULTS='LIFECYCLE KIND WHERE --seed 7')
	@$(PYTHON) -m faults $(FAULTS)

soak: .venv/ready ## what make test does in part, as often and as long as it takes, a line of JSON for each part (SOAK='kills requests')
	@$(PYTHON) -m soak $(SOAK)

e2e: .venv/ready ## the tests on the real node only
	@$(PYTHON) tests/run.py e2e

escalations: .venv/ready ## a tenant's attempts to get more than he has, as JSON; none may succeed
	@$(PYTHON) -m escalations

audit: $(UV) ## known weaknesses of what the images install, from uv.lock; fails where the database cannot be asked
	@$(UV) audit --frozen --no-dev --preview-features audit-command $(if $(AUDIT_URL),--service-url $(AUDIT_URL)); status=$$?; \
	  if [ $$status -eq 2 ]; then echo "NOTHING WAS CHECKED: the database $(or $(AUDIT_URL),https://api.osv.dev) did not answer;" \
	    "run this where it can be reached, or name a mirror: make audit AUDIT_URL=<url>" >&2; fi; exit $$status

sbom: $(UV) ## what each image installs, as CycloneDX in .cache/sbom
	@mkdir -p .cache/sbom
	@for image in operator trainer "trainer --extra gpu" serving "serving --extra cpu"; do set -- $$image; \
	  $(UV) export --quiet --frozen --no-dev --preview-features sbom-export --format cyclonedx1.5 --package finetune-$$1 $$2 $$3 \
	    --output-file .cache/sbom/$$1$${3:+-$$3}.cdx.json >/dev/null || exit 1; echo .cache/sbom/$$1$${3:+-$$3}.cdx.json; done

cluster-up: .venv/ready ## start the embedded Kubernetes with the project's images
	@$(PYTHON) -m cluster up --images

cluster-down: .venv/ready ## stop it; nothing but the cache stays
	@$(PYTHON) -m cluster down

clean: ## remove everything that was built
	@[ ! -x $(PYTHON) ] || $(PYTHON) -m cluster down
	rm -rf .venv .cache

$(UV):
	@command -v python3 >/dev/null || { echo "Python 3.11 is needed"; exit 1; }
	@python3 -m venv .cache/uv && .cache/uv/bin/pip install --quiet --disable-pip-version-check uv==0.13.8

.venv/ready: $(UV) uv.lock pyproject.toml crds/pyproject.toml pod_common/pyproject.toml operator/pyproject.toml trainer_image/pyproject.toml serving_image/pyproject.toml
	@$(UV) sync --frozen --quiet --compile-bytecode
	@touch $@
