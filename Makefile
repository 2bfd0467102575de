# The commands of a developer, in the environment that README's first command makes. `make check` is what a commit has
# to pass: a minute on two cores after its first run. CI runs the same targets and all other tests.

# Parts that need no framework, and of the model what is quick.
FORMATS = $(filter-out tests/formats/test_keras_hub%.py tests/formats/test_round_trips.py, \
	$(wildcard tests/formats/test_*.py))
FAST = tests/config tests/console tests/files $(FORMATS) tests/tokenizer tests/test_architecture.py \
	tests/test_audit.py tests/test_schedule.py tests/run/test_figures.py tests/run/test_folder.py \
	tests/run/test_provenance.py tests/run/test_resume.py \
	tests/lora/test_targets.py tests/models/test_attention.py tests/models/test_rope.py

.PHONY: check format lint types fast write-format test oracle jax slow pretrained site

check: format lint types fast

format:
	ruff format --check .

lint:
	ruff check .

types:
	mypy

fast:
	pytest -m "not oracle and not process and not slow and not pretrained" $(FAST)

# Everything above is reported; this one mends what it can.
write-format:
	ruff check --fix .
	ruff format .

test:
	pytest

oracle jax slow pretrained:
	pytest -m $@

# Needs: pip install -c constraints.txt -e ".[docs]"
site:
	mkdocs build --strict --quiet
