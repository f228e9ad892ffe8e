# Every third-party package of the trainer and of the server on CPUs, in one layer that changes only with the lock.
# The paths are those of the images built on it, which would install the local package anew from another one.
FROM finetune.dev/python:dev
COPY install.sh requirements.txt pyproject.toml /src/
COPY vllm-cpu /src/serving_image/vllm-cpu
RUN DEVICE=cpu sh /src/install.sh requirements /src/requirements.txt && rm -rf /src
