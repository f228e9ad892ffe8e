# All commands of this project. CI calls the same ones.
SHELL := /bin/bash
UV := .cache/uv/bin/uv
PYTHON := .venv/bin/python
CODE := crds/src pod_common/src operator/src trainer_image/src serving_image/src cli/src tests
export PYTHONPATH := tests
export PYTHONDONTWRITEBYTECODE := 1

.DEFAULT_GOAL := help
.PHONY: help try demo test check generate keep-release bench bench-operator bench-templates bench-training bench-serving bench-gpu families e2e escalations fuzz faults soak \
  audit sbom cluster-up cluster-down clean

help: ## list the commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

try: .venv/ready ## without a cluster: train, evaluate and serve a model on this machine, and chat with it
	@echo "creating the base model (about 5 minutes, once)"
	@$(PYTHON) examples/support-bot/make_base_model.py .cache/try/models/helpdesk-base
	@$(PYTHON) -m finetune run examples/support-bot/finetunejob.yaml --mount models=.cache/try/models \
	  --directory .cache/try --ask "I changed my mind about the kettle, can I send it back?"

demo: .venv/ready ## train, evaluate, serve and query a model on a real cluster (CLUSTER=current uses your own)
	@$(PYTHON) examples/support-bot/demo.py

test: .venv/ready ## run the tests, all tiers
	@$(PYTHON) tests/run.py

check: .venv/ready ## check format, lint, types, import contracts, spelling, words and generated files
	@.venv/bin/ruff format --check --quiet . || { echo "run: .venv/bin/ruff format ."; exit 1; }
	@.venv/bin/ruff check --quiet .
	@.venv/bin/mypy $(CODE) examples
	@.venv/bin/lint-imports
	@.venv/bin/codespell
	@! git grep -InwE -f tests/dialect.txt -- . ':!tests/dialect.txt' || { echo "write it in the field's words: CONTRIBUTING.md, Rules"; exit 1; }
	@.venv/bin/yamllint -s -d '{extends: relaxed, rules: {line-length: disable}}' crds charts/finetune-operator/*.yaml charts/finetune-operator/files examples
	@generated=$$(mktemp -d) && trap 'rm -rf "$$generated"' EXIT && $(PYTHON) -m finetune_api.crd "$$generated" \
	  && for directory in crds charts/finetune-operator/files/crds; do for file in "$$generated"/*; do \
	    diff -u "$$directory/$$(basename $$file)" "$$file" || { echo "run: make generate"; exit 1; }; done; done

generate: .venv/ready ## generate the CustomResourceDefinitions and the tables of what vLLM can adapt
	@$(PYTHON) -m families.architectures pod_common/src/finetune_pod/architectures.py
	@.venv/bin/ruff format --quiet pod_common/src/finetune_pod/architectures.py
	@$(PYTHON) -m finetune_api.crd crds charts/finetune-operator/files/crds

keep-release: ## archive the current commit as the release from which the upgrade tests start
	@python3 tests/upgrade/keep.py

bench: .venv/ready ## measure one decision of the operator; prints JSON
	@$(PYTHON) -m bench planning

bench-operator: .venv/ready ## measure the operator with thousands of FineTuneJobs on a real API server (half an hour); prints JSON
	@$(PYTHON) -m bench operator

bench-templates: .venv/ready ## compare what is trained with what vLLM serves (TEMPLATES=<folder of *.jinja>; default: TRL's); prints JSON
	@$(PYTHON) -m bench templates

bench-training: .venv/ready ## compare training with a plain TRL script, and prepare a million rows; prints JSON
	@$(PYTHON) -m bench training

bench-serving: .venv/ready ## compare the server with plain vLLM, and measure many adapters and rollouts; prints JSON
	@$(PYTHON) -m bench serving

bench-gpu: .venv/ready ## measure LoRA and QLoRA training on one GPU; prints JSON
	@$(PYTHON) -m bench gpu

families: .venv/ready ## train and serve a tiny model of every family and compare (half an hour); writes docs/models.md
	@$(PYTHON) -m families $(FAMILIES)

fuzz: .venv/ready ## fuzz with generated objects, mutated live objects and hostile pods (FUZZ='--seed 7 --only gates'); prints JSON
	@$(PYTHON) -m fuzz $(FUZZ)

faults: .venv/ready ## inject faults between operator and API server (FAULTS='LIFECYCLE KIND WHERE --seed 7'); prints JSON
	@$(PYTHON) -m faults $(FAULTS)

soak: .venv/ready ## repeat the tests whose outcome depends on chance (SOAK='kills requests'); prints a line of JSON for each
	@$(PYTHON) -m soak $(SOAK)

e2e: .venv/ready ## run only the tests on a real node
	@$(PYTHON) tests/run.py e2e

escalations: .venv/ready ## try to escalate a tenant's rights; prints JSON
	@$(PYTHON) -m escalations

audit: $(UV) ## look up known vulnerabilities of the packages in uv.lock; fails if the database does not answer
	@$(UV) audit --frozen --no-dev --preview-features audit-command $(if $(AUDIT_URL),--service-url $(AUDIT_URL)); status=$$?; \
	  if [ $$status -eq 2 ]; then echo "No package was checked: $(or $(AUDIT_URL),https://api.osv.dev) did not answer." \
	    "Run this with access to it, or use a mirror: make audit AUDIT_URL=<url>" >&2; fi; exit $$status

sbom: $(UV) ## write a CycloneDX SBOM of each image to .cache/sbom
	@mkdir -p .cache/sbom
	@for image in operator trainer "trainer --extra gpu" serving "serving --extra cpu"; do set -- $$image; \
	  $(UV) export --quiet --frozen --no-dev --preview-features sbom-export --format cyclonedx1.5 --package finetune-$$1 $$2 $$3 \
	    --output-file .cache/sbom/$$1$${3:+-$$3}.cdx.json >/dev/null || exit 1; echo .cache/sbom/$$1$${3:+-$$3}.cdx.json; done

cluster-up: .venv/ready ## start the embedded Kubernetes with the project's images
	@$(PYTHON) -m cluster up --images

cluster-down: .venv/ready ## stop the embedded Kubernetes; keep only the cache
	@$(PYTHON) -m cluster down

clean: ## stop the embedded Kubernetes and remove all build output
	@[ ! -x $(PYTHON) ] || $(PYTHON) -m cluster down
	rm -rf .venv .cache

$(UV):
	@command -v python3 >/dev/null || { echo "Install Python 3.11"; exit 1; }
	@python3 -m venv .cache/uv && .cache/uv/bin/pip install --quiet --disable-pip-version-check uv==0.13.8

.cache/clients/ready: $(UV) tests/clients/uv.lock tests/clients/package-lock.json
	@command -v npm >/dev/null || { echo "Install Node.js 20 or newer with npm: the tests use OpenAI's client for it" >&2; exit 1; }
	@for group in openai3 openai2; do UV_PROJECT_ENVIRONMENT=$(CURDIR)/.cache/clients/$$group \
	  $(UV) sync --project tests/clients --frozen --quiet --only-group $$group || exit 1; done
	@cp tests/clients/package.json tests/clients/package-lock.json .cache/clients/
	@npm ci --prefix .cache/clients --ignore-scripts --silent
	@touch $@

.venv/ready: $(UV) uv.lock pyproject.toml crds/pyproject.toml pod_common/pyproject.toml operator/pyproject.toml trainer_image/pyproject.toml serving_image/pyproject.toml cli/pyproject.toml
	@$(UV) sync --frozen --quiet --compile-bytecode
	@touch $@
