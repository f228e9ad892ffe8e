# Every third-party package of the trainer and of the server on CPUs, in one layer that changes only with the lock.
FROM finetune.dev/python:dev
COPY install.sh requirements.txt pyproject.toml /tmp/install/
COPY vllm-cpu /tmp/install/serving_image/vllm-cpu
RUN sh /tmp/install/install.sh requirements /tmp/install/requirements.txt && rm -rf /tmp/install
