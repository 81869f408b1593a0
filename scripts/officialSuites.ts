/**
 * Runs the suites of the official SDKs direct, through a gateway and through the governed `fetch`, and says which tests fail only through
 * Floodgate. Exits with 1 if one does.
 *
 *     git clone https://github.com/openai/openai-node DIR
 *     git clone https://github.com/anthropics/anthropic-sdk-typescript DIR2
 *     npm run suites -- --openai DIR --anthropic DIR2
 *
 * A suite without a checkout is skipped. The tests are those of `tests/api-resources`, one for each method of the SDK and form of its
 * arguments. Their server is Steady on the specification of the SDK's own repository. Anthropic's has none, so there every request is
 * answered with an empty object, unless `--anthropic-spec FILE` names one. `--only WORD` runs the test files with that word in their path.
 * The tools are installed into `node_modules/.cache/suites`.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import type * as Scope from "effect/Scope"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import { spawn } from "node:child_process"
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { join, relative } from "node:path"
import { parseArgs } from "node:util"

const root = join(import.meta.dirname, "..")
const tools = join(root, "node_modules/.cache/suites")
const { values: options } = parseArgs({
  options: {
    openai: { type: "string" },
    anthropic: { type: "string" },
    "anthropic-spec": { type: "string" },
    only: { type: "string", default: "" }
  }
})

// -----------------------------------------------------------------------------
// Tools
// -----------------------------------------------------------------------------

/** Runs a program to its end. Its output is shown only if it fails. */
const run = (program: string, args: ReadonlyArray<string>, env: NodeJS.ProcessEnv = {}): Promise<number> =>
  new Promise((resolve, reject) => {
    const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ["ignore", "ignore", "pipe"] })
    let said = ""
    child.stderr.on("data", (chunk) => (said += String(chunk)))
    child.on("error", reject)
    child.on("close", (code) => {
      if (code !== 0 && code !== 1) console.error(said.slice(-2_000))
      resolve(code ?? 2)
    })
  })

/** The packages that the suites and their sources need. */
const packages = [
  "@stdy/cli@0.22",
  "jest@30",
  "jest-environment-node@30",
  "@swc/core@1",
  "@swc/jest@0.2",
  "json-schema-to-ts@3",
  "standardwebhooks@1",
  "zod@4"
]

const install = async (): Promise<void> => {
  const marker = join(tools, "installed.json")
  const wanted = JSON.stringify(packages)
  if (existsSync(marker) && readFileSync(marker, "utf8") === wanted) return
  mkdirSync(tools, { recursive: true })
  writeFileSync(join(tools, "package.json"), '{ "private": true }')
  const code = await run("npm", ["install", "--prefix", tools, "--no-audit", "--no-fund", "--save=false", ...packages])
  if (code !== 0) throw new Error("The tools of the suites cannot be installed: is there a registry?")
  writeFileSync(marker, wanted)
}

// -----------------------------------------------------------------------------
// Servers
// -----------------------------------------------------------------------------

const listen = (server: Server): Promise<string> =>
  new Promise((resolve) =>
    server.listen(0, "127.0.0.1", () => resolve(`http://127.0.0.1:${(server.address() as AddressInfo).port}`))
  )

/** A free port. The next program may take it, so a caller waits until its own server answers. */
const freePort = async (): Promise<number> => {
  const server = createServer()
  const { port } = new URL(await listen(server))
  await new Promise((resolve) => server.close(resolve))
  return Number(port)
}

/** The path that the suites expect nowhere. */
const nowhere = "/_stainless_unknown_path"

/** Answers every request with an empty object, except where nothing is. */
const emptyServer = Effect.acquireRelease(
  Effect.promise(async () => {
    const server = createServer((request, response) => {
      const status = request.url?.startsWith(nowhere) === true ? 404 : 200
      request.resume().on("end", () => response.writeHead(status, { "content-type": "application/json" }).end("{}"))
    })
    return { server, url: await listen(server) }
  }),
  ({ server }) =>
    Effect.sync(() => {
      server.closeAllConnections()
      server.close()
    })
).pipe(Effect.map(({ url }) => url))

const answers = (url: string): Promise<boolean> =>
  fetch(`${url}/_x-steady/health`).then(
    ({ ok }) => ok,
    () => false
  )

/** Steady, which answers by the examples and schemas of a specification. */
const steady = (spec: string) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const port = await freePort()
      const brackets = ["query-array", "form-array", "query-object", "form-object"]
      const formats = brackets.map((name) => `--validator-${name}-format=brackets`)
      const program = join(tools, "node_modules/.bin/steady")
      const server = spawn(program, ["--host", "127.0.0.1", "-p", String(port), ...formats, spec], { stdio: "ignore" })
      const url = `http://127.0.0.1:${port}`
      while (!(await answers(url))) {
        if (server.exitCode !== null) throw new Error(`Steady does not start with ${spec}`)
        await new Promise((resolve) => setTimeout(resolve, 100))
      }
      return { server, url }
    }),
    ({ server }) => Effect.sync(() => server.kill())
  ).pipe(Effect.map(({ url }) => url))

/** A copy of a specification whose paths begin with the version, as they do at the provider. */
const versioned = (spec: string): string => {
  const copy = join(tools, "openai.yml")
  const [before, paths, after] = readFileSync(spec, "utf8").split(/^(?=paths:$)|^(?=components:$)/m)
  writeFileSync(copy, before + paths!.replaceAll(/^ {2}(["']?)\//gm, "  $1/v1/") + after)
  return copy
}

const gatewayTo = Effect.fnUntraced(function* (upstreams: Record<string, string>) {
  const context = yield* Layer.build(
    Governor.layer().pipe(Layer.provideMerge(Budget.layer()), Layer.provideMerge(Logger.layer([])))
  )
  const { url } = yield* Effect.provideContext(Gateway.make({ upstreams, drain: "20 millis" }), context)
  return url
})

// -----------------------------------------------------------------------------
// Suites
// -----------------------------------------------------------------------------

interface Suite {
  readonly name: "openai" | "anthropic"
  readonly folder: string
  /** The name of the package, as its tests import it. */
  readonly imports: string
  readonly setup: ReadonlyArray<string>
  readonly server: Effect.Effect<string, never, Scope.Scope>
  /** The end of base URLs. */
  readonly version: string
}

/** A way from the SDK to the server. */
interface SuiteWay {
  readonly name: string
  readonly baseUrl: string
  readonly isGoverned: boolean
}

/** Gives the tests a governed `fetch`. It is loaded outside of their sandbox. */
const environment = (isGoverned: boolean): string => {
  const file = join(tools, isGoverned ? "governed.mjs" : "plain.mjs")
  const library = JSON.stringify(join(root, "src/adapters/promise/index.ts"))
  writeFileSync(
    file,
    isGoverned
      ? `import { TestEnvironment } from "jest-environment-node"
import * as Floodgate from ${library}
const floodgate = Floodgate.create()
export default class extends TestEnvironment {
  async setup() {
    await super.setup()
    this.global.fetch = floodgate.fetch
  }
}
`
      : 'export { TestEnvironment as default } from "jest-environment-node"\n'
  )
  return file
}

interface Report {
  readonly testResults: ReadonlyArray<{
    readonly name: string
    readonly message: string
    readonly assertionResults: ReadonlyArray<{
      readonly fullName: string
      readonly status: string
      readonly failureMessages: ReadonlyArray<string>
    }>
  }>
}

/** The tests of a suite by their names: undefined if they passed, and otherwise why they failed. */
type SuiteResults = ReadonlyMap<string, string | undefined>

const results = async (
  { folder, imports, name, setup }: Suite,
  way: SuiteWay,
  files: ReadonlyArray<string> = [`tests/api-resources/**/*${options.only}*.test.ts`]
): Promise<SuiteResults> => {
  const config = join(tools, "jest.json")
  const output = join(tools, "report.json")
  writeFileSync(
    config,
    JSON.stringify({
      rootDir: folder,
      testEnvironment: environment(way.isGoverned),
      setupFiles: setup.map((file) => join(folder, file)),
      testMatch: files.map((file) => `<rootDir>/${file}`),
      transform: { "^.+\\.(t|j)sx?$": [join(tools, "node_modules/@swc/jest"), { sourceMaps: "inline" }] },
      moduleNameMapper: { [`^${imports}$`]: "<rootDir>/src/index.ts", [`^${imports}/(.*)$`]: "<rootDir>/src/$1" },
      modulePathIgnorePatterns: ["<rootDir>/ecosystem-tests/", "<rootDir>/dist/", "<rootDir>/packages/"],
      modulePaths: [join(tools, "node_modules")],
      testTimeout: 20_000
    })
  )
  const jest = join(tools, "node_modules/jest/bin/jest.js")
  const args = ["--conditions=@floodgate/source", jest, "--config", config, "--runInBand", "--forceExit"]
  await run(process.execPath, [...args, "--json", "--outputFile", output, "--silent"], {
    TEST_API_BASE_URL: way.baseUrl,
    NODE_OPTIONS: ""
  })
  const found = new Map<string, string | undefined>()
  const report = JSON.parse(readFileSync(output, "utf8")) as Report
  for (const { assertionResults, message, name: file } of report.testResults) {
    const where = relative(folder, file)
    if (assertionResults.length === 0) found.set(where, message)
    for (const { failureMessages, fullName, status } of assertionResults) {
      if (status === "passed" || status === "failed") found.set(`${where}: ${fullName}`, failureMessages[0])
    }
  }
  if (found.size === 0) throw new Error(`The suite ${name} has no tests in ${folder}/tests/api-resources`)
  return found
}

const failing = (all: SuiteResults): ReadonlyArray<string> =>
  [...all].flatMap(([name, why]) => (why === undefined ? [] : [name]))

/** The tests that fail on a way, and direct do not. */
const onlyThere = (direct: SuiteResults, there: SuiteResults): ReadonlyArray<string> =>
  failing(there).filter((test) => direct.has(test) && direct.get(test) === undefined)

/** Whether tests fail once more. Steady resets some uploads, also without anything between. */
const again = async (suite: Suite, way: SuiteWay, tests: ReadonlyArray<string>): Promise<ReadonlyArray<string>> => {
  if (tests.length === 0) return tests
  const files = [...new Set(tests.map((test) => test.split(": ", 1)[0]!))]
  const second = failing(await results(suite, way, files))
  return tests.filter((test) => second.includes(test))
}

/** Runs a suite on all ways. Returns how many tests fail only through Floodgate. */
const compared = Effect.fnUntraced(function* (suite: Suite) {
  const server = yield* suite.server
  const other = yield* emptyServer
  const [openai, anthropic] = suite.name === "openai" ? [server, other] : [other, server]
  const gateway = yield* gatewayTo({ openai, anthropic })
  const { name, version } = suite
  const ways: ReadonlyArray<SuiteWay> = [
    { name: "direct", baseUrl: `${server}${version}`, isGoverned: false },
    { name: `gateway, /${name}${version}`, baseUrl: `${gateway}/${name}${version}`, isGoverned: false },
    { name: `gateway, ${version === "" ? "/" : version}`, baseUrl: `${gateway}${version}`, isGoverned: false },
    { name: "floodgate.fetch", baseUrl: `${server}${version}`, isGoverned: true }
  ]
  let direct: SuiteResults | undefined
  let count = 0
  for (const way of ways) {
    const all = yield* Effect.promise(() => results(suite, way))
    direct ??= all
    const here = yield* Effect.promise(() => again(suite, way, onlyThere(direct!, all)))
    const missing = [...direct.keys()].filter((test) => !all.has(test))
    count += here.length + missing.length
    console.log(`| ${name} | ${way.name} | ${all.size} | ${failing(all).length} | ${here.length + missing.length} |`)
    for (const test of here) console.error(`${way.name}: ${test}\n${all.get(test)!.slice(0, 1_500)}\n`)
    for (const test of missing) console.error(`${way.name}: ${test}\nwas not run\n`)
  }
  return count
}, Effect.scoped)

const suites: ReadonlyArray<Suite | string> = [
  options.openai === undefined
    ? "openai is skipped: --openai names no checkout of openai-node"
    : {
        name: "openai",
        folder: options.openai,
        imports: "openai",
        setup: ["scripts/jest-setup.ts"].filter((file) => existsSync(join(options.openai!, file))),
        server: Effect.suspend(() => steady(versioned(join(options.openai!, "api_reference/openapi.transformed.yml")))),
        version: "/v1"
      },
  options.anthropic === undefined
    ? "anthropic is skipped: --anthropic names no checkout of anthropic-sdk-typescript"
    : {
        name: "anthropic",
        folder: options.anthropic,
        imports: "@anthropic-ai/sdk",
        setup: [],
        server: options["anthropic-spec"] === undefined ? emptyServer : steady(options["anthropic-spec"]),
        version: ""
      }
]

const skipped = suites.filter((suite) => typeof suite === "string")
const present = suites.filter((suite) => typeof suite !== "string")
for (const why of skipped) console.log(why)
if (present.length > 0) {
  await install()
  console.log("| suite | through | tests | failing | failing only there |\n| --- | --- | --- | --- | --- |")
  const counts = await Effect.runPromise(Effect.forEach(present, compared))
  process.exitCode = counts.some((count) => count > 0) ? 1 : 0
}
