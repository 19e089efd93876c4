# An image for the nodes of a Ray cluster (docs/cluster/rayjob.yaml) or for one machine, with what constraints.txt pins.
#
#   docker build -t registry.example.org/tune-rsst:ray-2.60.0 .          in a checkout of the repository
#   docker run --gpus all --shm-size=8gb -v "$PWD/rsst:/mnt/rsst" registry.example.org/tune-rsst:ray-2.60.0 tune-rsst sweep
#
# The versions are checked by tests/test_cluster.py; it was not built from here.
FROM rayproject/ray:2.60.0-py311-gpu
COPY --chown=ray:users . /home/ray/tune-rsst
RUN pip install --no-cache-dir -c /home/ray/tune-rsst/constraints.txt '/home/ray/tune-rsst[all]'
ENV TUNE_RSST_HOME=/mnt/rsst/home
WORKDIR /home/ray
