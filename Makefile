# Tallystick. "make" prints the targets; "make run" needs nothing but Go and, if servers are to be installed, a package manager.

BIN  := .tallystick/bin
GO   ?= go
TOOL := $(GO) tool -modfile=tools/go.mod
EXEC := $(BIN)/tallystick dev exec --

# What "make test" and "make bench" look at, for example: make test PKG=./balance/... ARGS='-run TestConsume -v'
PKG  ?= ./...
ARGS ?=

# Open grants of "make bench"; 10,000 of them expire within one minute.
BENCH_GRANTS ?= 100000

# How long each case of "make soak" goes on.
SOAK_SECONDS ?= 60

.DEFAULT_GOAL := help
.PHONY: help run test bench soak lint generate verify-generated reset build bootstrap

help: ## Print the targets.
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: bootstrap build ## Install what is missing, build, and run everything until Ctrl-C.
	@exec $(BIN)/tallystick dev

test: CHECKERS := checkers
test: bootstrap build ## Run all tests against Postgres, Redis and Temporal servers of their own.
	$(EXEC) $(GO) test -count=1 -timeout 14m $(ARGS) $(PKG)

bench: bootstrap build ## Measure the consume endpoint beside its baselines, many grants expiring at once, and the parts.
	$(GO) build -o $(BIN)/bench ./bench
	$(EXEC) $(BIN)/bench
	$(EXEC) $(BIN)/bench -grants $(BENCH_GRANTS)
	$(EXEC) $(GO) test -run '^$$' -bench . -benchmem -count=1 -timeout 30m $(ARGS) $(PKG)

soak: bootstrap build ## Break everything at length, SOAK_SECONDS for each case, and run all tests with the race detector.
	TALLYSTICK_SOAK_SECONDS=$(SOAK_SECONDS) $(GO) test -count=1 -timeout 0 -v $(ARGS) ./faults/...
	$(EXEC) $(GO) test -race -count=1 -timeout 60m $(PKG)

lint: ## Check the code: gofmt, vet, staticcheck, workflow determinism.
	@unformatted=$$(gofmt -l $$(git ls-files --cached --others --exclude-standard '*.go')); \
	if [ -n "$$unformatted" ]; then echo "not formatted:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	$(TOOL) workflowcheck ./...

generate: $(BIN)/sqlc ## Generate code from SQL and from go:generate lines.
	$(BIN)/sqlc generate
	$(GO) generate ./...

verify-generated: ## Fail if "make generate" changes a file.
	@files() { git ls-files --cached --others --exclude-standard | sort | xargs cksum; }; \
	before=$$(files) && $(MAKE) --no-print-directory generate && after=$$(files) && \
	if [ "$$before" != "$$after" ]; then echo "generated code was out of date; commit what make generate has changed"; git status --short; exit 1; fi

reset: build ## Delete the data of all three servers.
	$(BIN)/tallystick dev reset

build: ## Build the program.
	$(GO) build -o $(BIN)/tallystick .

bootstrap:
	@sh deploy/bootstrap.sh $(CHECKERS)

$(BIN)/sqlc: tools/go.mod
	$(GO) build -modfile=tools/go.mod -o $@ github.com/sqlc-dev/sqlc/cmd/sqlc
