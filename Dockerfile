# llama_exp for a CPU.
#
#   docker build --tag llama_exp .
#   mkdir -p outputs
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD/outputs:/runs/outputs" llama_exp train
#
# Runs land in the mounted folder. A volume at /cache keeps downloads and compiled kernels between two containers.
FROM python:3.11-slim

WORKDIR /opt/llama_exp

# The dependencies first: they change seldom, and after a change of the code alone their layer is taken as it is.
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > needs.txt
RUN pip install --no-cache-dir -c constraints.txt -r needs.txt
COPY conf conf
COPY hydra_plugins hydra_plugins
COPY llama_exp llama_exp
RUN pip install --no-cache-dir --no-deps .

# Any user may run it: what it writes goes to the working folder and below HOME.
RUN mkdir -p /runs /cache && chmod 1777 /runs /cache
ENV HOME=/cache
WORKDIR /runs

ENTRYPOINT ["llama-exp"]
CMD ["--help"]
