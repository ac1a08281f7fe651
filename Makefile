.PHONY: check test mutants demo docs shots

check:
	ruff format --check .
	ruff check .
	mypy
	lint-imports --config setup.cfg
	python .ci/sizes.py

test:
	pytest

mutants:
	python .ci/mutants.py

demo:
	skcalib demo

# The hosted laboratory runs networks if NODE_PATH names a folder with onnxruntime-web.
docs:
	sphinx-build -q -W --keep-going -b html docs docs/_build/html
	python .ci/offline.py docs/_build/html

# Pictures of the pages on a phone and a laptop, light and dark; needs Chromium.
shots: docs
	python .ci/shots.py docs/_build/html docs/_build/shots
