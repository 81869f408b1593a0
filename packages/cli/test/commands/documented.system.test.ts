/** Runs the commands of the pages, as they stand there. A command that is neither run here nor named with a reason fails. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { ProviderServer } from "floodgate/testing/server"
import { chmodSync, globSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { folder, programAt } from "../../../gateway/test/support/command.ts"
import { ask, messages, ofClaudeCode, world } from "../../../gateway/test/world.ts"
import { floodgate } from "../support/cli.ts"
import { services } from "../../../gateway/test/support/services.ts"

const root = resolve(import.meta.dirname, "../../../..")
const pages = globSync(
  ["*.md", "docs/*.md", "docs/guides/*.md", "examples/*.md", "skills/*/*.md", "packages/*/README.md"],
  {
    cwd: root
  }
)

/** The commands of a page's shell fences, one a line, with the lines that they continue on. */
const commandsOf = (page: string): ReadonlyArray<string> =>
  Array.from(readFileSync(join(root, page), "utf8").matchAll(/^ *```sh\n([\s\S]*?)^ *```$/gm), ([, fence]) =>
    fence!
      .replaceAll(/\\\n\s*/g, "")
      .split("\n")
      .map((line) => line.replace(/\s+#.*$/, "").trim())
      .filter((line) => line !== "" && !line.startsWith("#"))
  ).flat()

const documented = [...new Set(pages.filter((page) => !page.startsWith("CHANGELOG")).flatMap(commandsOf))].sort()

/** Commands that this does not run, and why. */
const elsewhere: ReadonlyArray<readonly [RegExp, string]> = [
  [/^npm (ci|test|run verify|start)\b/, "they run all tests, and CI runs them"],
  [/^npm (install|run -s add)\b/, "test/packaging installs the packed packages in programs"],
  [/^(sha256sum|tar|\.\/floodgate-gateway)\b/, "packages/gateway/test/command/executable.system.test.ts"],
  [/^(npm run lab|npm run lab -- --table)$/, "a minute of all cores: packages/lab/test races its parts"],
  [/^npx @floodgate\/cli start$/, "20 seconds of two cores: try.test.ts"],
  [/^(\S+=\S+ )*(exec \.\/agents|your-program|node ask\.mjs)$/, "programs of the reader"],
  [/ tickets --key search --cancel$/, "tickets.system.test.ts has tickets to cancel"],
  [/^claude |^ANTHROPIC_BASE_URL=\S+ claude\b/, "test/clients starts Claude Code at a gateway"]
]
const reasonOf = (command: string) => elsewhere.find(([pattern]) => pattern.test(command))?.[1]

/** Commands that run until somebody stops them. */
const isServer = (command: string): boolean =>
  /^(npm run -s floodgate -- |npx @floodgate\/cli |floodgate )(gateway|provider)( --(?!help)|$)/.test(command) ||
  /^(floodgate-gateway|npx @floodgate\/gateway)( --(?!help)| &|$)/.test(command)

const sessions = `session,path,pause,input,cached,output
review,0,0,16000,0,300
,0/1,0,15800,0,200
,,4,19000,15800,250
,0,9,18000,16000,400
`

/** The programs that the commands name, as scripts that run the sources. Servers take any free port. */
const installIn = (folder: string): void => {
  const node = `"${process.execPath}" --no-warnings --conditions=@floodgate/source`
  const scripts: Readonly<Record<string, string>> = {
    floodgate: `case "$1 $*" in
  *--port*|*" key "*|*--help*) ;;
  "gateway "*|"provider "*) set -- "$@" --port 0 ;;
esac
exec ${node} "${root}/packages/cli/src/bin.ts" "$@"`,
    "floodgate-gateway": `case "$1" in
  init|key|--help) ;;
  *) set -- "$@" --port 0 ;;
esac
exec ${node} "${root}/packages/gateway/src/command/bin.ts" "$@"`,
    npm: `shift
[ "$1" != -s ] || shift
script=$1
shift
[ "$1" != -- ] || shift
case "$script" in
  floodgate) exec floodgate "$@" ;;
  lab) exec floodgate lab "$@" ;;
  example) cd "${root}" && exec ${node} "$@" ;;
  *) echo "no script $script"; exit 1 ;;
esac`,
    npx: `name=$1
shift
case "$name" in
  @floodgate/gateway) exec floodgate-gateway "$@" ;;
  floodgate|@floodgate/cli) exec floodgate "$@" ;;
  *) echo "no package $name"; exit 1 ;;
esac`
  }
  for (const [name, text] of Object.entries(scripts)) {
    writeFileSync(join(folder, name), `#!/bin/sh\n${text}\n`)
    chmodSync(join(folder, name), 0o755)
  }
}

const tokens = {
  FLOODGATE_GATEWAY_ADMIN_TOKEN: "fedcba9876543210",
  FLOODGATE_GATEWAY_REQUESTS_TOKEN: "0123456789abcdef"
}

/** A folder with the files that commands name, a provider, and a gateway with a job. */
const surroundings = Effect.gen(function* () {
  const { inside } = yield* folder
  const programs = join(inside, "bin")
  mkdirSync(programs)
  installIn(programs)
  writeFileSync(join(inside, "README.md"), "A gate holds back water.\n".repeat(40))
  writeFileSync(join(inside, "docs/two.md"), "The gate opens when there is room.\n".repeat(40))
  writeFileSync(join(inside, "sessions.csv"), sessions)
  const provider = yield* ProviderServer.make({ latency: { baseMillis: 1, perOutputTokenMillis: 0 }, outputTokens: 5 })
  const gateway = yield* world(messages, {
    adminToken: tokens.FLOODGATE_GATEWAY_ADMIN_TOKEN,
    requestsToken: tokens.FLOODGATE_GATEWAY_REQUESTS_TOKEN,
    rules: [{ name: "search", cap: { dollars: 100, per: "day" } }, { capPerJob: { agents: 3 } }]
  })
  yield* ask(`${gateway.url}/v1/messages`, ofClaudeCode("s1"))
  const jobs = yield* floodgate("jobs", "--gateway", gateway.url).pipe(Effect.provide(services({ env: tokens })))
  const job = /[\da-f]{16}/.exec(jobs.out)![0]
  const env = {
    ...tokens,
    PATH: `${programs}:${process.env["PATH"]}`,
    HOME: inside,
    FLOODGATE_GATEWAY_URL: gateway.url,
    ANTHROPIC_API_KEY: "test",
    ANTHROPIC_BASE_URL: provider.url
  }
  const inWorld = (command: string): string =>
    command
      .replaceAll("http://127.0.0.1:8788", gateway.url)
      .replaceAll("--port 8788", "--port 0")
      .replaceAll("5f0c2a9d41b7e836", job)
      .replaceAll("YOUR-FOLDER", "docs")
      .replace(/--scenario (sessions|two-places)$/, "$& --agents 4")
      .replace("--record sessions.csv", "--record recorded.csv")
      .replace(/ &$/, "")
  return { inside, env, inWorld }
})

describe("the commands of the pages", () => {
  it("are each run or named with a reason, and no reason is left over", () => {
    assert.isAbove(documented.length, 50)
    for (const [pattern, reason] of elsewhere) {
      assert.isTrue(
        documented.some((command) => pattern.test(command)),
        `no page has a command for: ${reason}`
      )
    }
  })

  it.live(
    "do what they say",
    () =>
      Effect.gen(function* () {
        const { env, inWorld, inside } = yield* surroundings
        const { run, start } = programAt("sh", ["-c"])
        // The first writes the configuration that others read.
        const commands = documented.filter((command) => reasonOf(command) === undefined)
        const first = "floodgate-gateway init"
        const wrong: Array<string> = []
        for (const command of [first, ...commands.filter((each) => each !== first)]) {
          if (isServer(command)) {
            const { child, ended, output } = start(inside, [`exec ${inWorld(command)}`], env)
            const isReady = () => child.exitCode !== null || /listening on|http:\/\/127\.0\.0\.1:\d+/.test(output())
            yield* Effect.repeat(Effect.sleep("20 millis"), { until: isReady })
            const isUp = child.exitCode === null
            child.kill("SIGTERM")
            const { code } = yield* Effect.promise(() => ended)
            if (!isUp || (code !== 0 && code !== 143)) wrong.push(`${command}: ${code}\n${output()}`)
          } else {
            const { code, stderr, stdout } = yield* run(inside, [inWorld(command)], env)
            if (code !== 0 || /"error":/.test(stdout)) wrong.push(`${command}: ${code}\n${stdout}${stderr}`)
          }
        }
        assert.deepStrictEqual(wrong, [])
      }),
    // 85 s on a machine with nothing else to do, 167 s on one with 17 runnable processes.
    600_000
  )
})
