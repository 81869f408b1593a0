/** `npm run judge`: says whether a hot path executes or allocates more than at an earlier commit. See {@link help}. */
import { type ChildProcess, execFileSync, fork, type ForkOptions, spawnSync } from "node:child_process"
import { once } from "node:events"
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs"
import * as Http from "node:http"
import type { AddressInfo } from "node:net"
import { loadavg } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { Pool } from "undici"
import { Conversations } from "../benchmark/judge/conversation.ts"
import {
  cappedAgent,
  conversations,
  type Figure,
  isOverHttp,
  type Path,
  type Question,
  trees
} from "../benchmark/judge/models.ts"
import {
  compare,
  type Compared,
  type Cost,
  recorded,
  type RecordedFigure,
  type RecordedFigures,
  sentences
} from "../benchmark/judge/verdict.ts"
import { bring, checkOut, resolved } from "../benchmark/support/checkouts.ts"
import { type Spread, tableOf } from "../benchmark/support/inTurns.ts"
import { progress } from "../benchmark/support/progress.ts"

const all: ReadonlyArray<Path> = [
  { name: "create", count: 300 },
  { name: "withReservation", count: 500 },
  { name: "fetch-4KB", count: 100 },
  { name: "fetch-100KB", count: 30 },
  { name: "stream-500-events", count: 5 },
  { name: "gateway-4KB", count: 50, sentences: 152 },
  { name: "gateway-100KB", count: 20, sentences: 3_840 },
  { name: "gateway-400KB", count: 10, sentences: 15_360 }
]

/** On a machine with more to do, a server takes other turns. */
const maxLoad = 0.5

const help = `Says whether a hot path executes or allocates more than at an earlier commit, whatever else the machine does.

  npm run judge                              the working tree beside the last commit of benchmark/figures.jsonl, or
                                             beside the commit before it if none of that file is in its history
  npm run judge -- --against v0.4.0          beside another commit
  npm run judge -- --commit abc --against abc^  one commit beside another
  npm run judge -- --only create,gateway     the paths whose names contain one of these
  npm run judge -- --turns 20                more turns: a narrower spread
  npm run judge -- --record                  appends what was found to benchmark/figures.jsonl: later commits are judged by it

Paths: ${all.map(({ name }) => name).join(", ")};
and only if one is named, calls of conversations with tools: ${conversations.map(({ name }) => name).join(", ")};
and of agents in trees: ${trees.map(({ name }) => name).join(", ")}.

Both checkouts run at the same time, each in a process under Valgrind, which counts the instructions that it executes; some minutes if
two processors are free. Without Valgrind only allocations are judged, which takes a minute. Bytes are what the heap grows by while
nothing is collected. They do not depend on the load of the machine, nor do the instructions of the library. Those of the gateway do,
because a busy machine delivers bodies in other pieces, so above a load of ${maxLoad} only its bytes are judged. Instructions are not time:
they know nothing of the processor's caches, of the kernel and of waiting. For time see npm run bench, on a machine where nothing else runs.

A figure is the median of the turns. Each turn is compared with the same turn of the other commit, and the quartiles of that are in
parentheses. A path is worse if the median is above 1 by more than both the spread and what two equal commits show, and again in new
processes: two processes of one commit may have compiled a path differently for good. Then this exits with 1. Find the commit with
--commit, and see where by comparing two profiles (node --cpu-prof).
If the cost has a good reason, say it in the commit, and --record what paths take now. If turns differ so much that 5 % more would not be
noticed, this cannot judge, says so, and exits with 2.`

const fail = (reason: string): never => {
  console.error(`judge: ${reason}`)
  return process.exit(2)
}

const root = join(import.meta.dirname, "..")
const { values } = parseArgs({
  options: {
    against: { type: "string" },
    commit: { type: "string" },
    only: { type: "string" },
    turns: { type: "string", default: "8" },
    record: { type: "boolean", default: false },
    help: { type: "boolean", short: "h", default: false }
  }
})
if (values.help) {
  console.log(help)
  process.exit(0)
}

/** Turns before those that count. */
const warmups = 8

/** A process that uses no second of processor time in this time waits for something. */
const stallMillis = 120_000

const turns = Number(values.turns)
if (!(turns >= 3)) fail(`--turns: expected a number of at least 3, got "${values.turns}"`)
const wanted = values.only?.split(",")
const known = [...all, ...conversations, ...trees]
const paths = wanted === undefined ? all : known.filter(({ name }) => wanted.some((part) => name.includes(part)))
if (paths.length === 0)
  fail(`--only ${values.only}: no such path; known are ${known.map(({ name }) => name).join(", ")}`)
const countsInstructions = spawnSync("valgrind", ["--version"]).status === 0
if (!countsInstructions) {
  console.log("judge: only allocations are judged: Valgrind counts instructions (apt-get install valgrind)")
}

const load = loadavg()[0]!
const isBusy = load > maxLoad && paths.some(isOverHttp)
if (isBusy && countsInstructions) {
  console.log(`judge: cannot judge the gateway's instructions at a load of ${load.toFixed(1)} (at most ${maxLoad})`)
}

// -----------------------------------------------------------------------------
// Checkouts
// -----------------------------------------------------------------------------

const git = (...args: ReadonlyArray<string>): string =>
  execFileSync("git", args, { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] }).trim()

const isChanged = git("status", "--porcelain", "--untracked-files=no") !== ""
const existing = (option: string, commit: string): string =>
  resolved(commit) ?? fail(`${option} ${commit}: there is no such commit here; git fetch --unshallow gets them all`)

/** Undefined for the working tree. */
const commit = values.commit === undefined ? undefined : existing("--commit", values.commit)
const head = commit ?? git("rev-parse", "--short", "HEAD")
const isTree = commit === undefined && isChanged
if (values.record && isTree)
  fail("--record: figures belong to a commit, and the working tree has changes: commit them first")
if (values.record && !countsInstructions) fail("--record: needs Valgrind, which counts instructions")
if (isBusy && values.record) fail(`--record: the load is ${load.toFixed(1)}; wait until nothing else runs (${maxLoad})`)

const figuresFile = join(root, "benchmark/figures.jsonl")
const isBefore = (earlier: string): boolean =>
  (isTree || resolved(earlier) !== resolved(head)) &&
  spawnSync("git", ["merge-base", "--is-ancestor", earlier, head], { cwd: root }).status === 0

/** The last commit before ours whose figures are recorded. What it took was accepted, so small steps since then count together. */
const lastRecorded = (): string | undefined =>
  existsSync(figuresFile)
    ? recorded(readFileSync(figuresFile, "utf8")).find((each) => resolved(each) !== undefined && isBefore(each))
    : undefined

const base = values.against ?? lastRecorded() ?? (isTree ? "HEAD" : `${head}^`)
if (values.against === undefined && resolved(base) === undefined) {
  console.log("judge: the history here has one commit, so there is nothing to compare with")
  process.exit(0)
}
const against = existing("--against", base)
const ours = isTree ? `${head} with changes` : head

const folder = join(root, ".judge")
const checkedOut = (of: string | undefined, name: string): string => {
  const checkout = join(folder, name)
  checkOut(of, checkout)
  bring(checkout, "benchmark/judge")
  return checkout
}

// -----------------------------------------------------------------------------
// The provider behind the gateways
// -----------------------------------------------------------------------------

const sentence = "A question of some length. "
const answer = JSON.stringify({
  id: "msg_1",
  type: "message",
  role: "assistant",
  model: "claude-sonnet-5",
  stop_reason: "end_turn",
  content: [{ type: "text", text: sentence.repeat(140) }],
  usage: { input_tokens: 500, output_tokens: 350 }
})
const usage = { input_tokens: 3, cache_creation_input_tokens: 500, cache_read_input_tokens: 20_000, output_tokens: 350 }
const turnOfConversation = JSON.stringify({ ...(JSON.parse(answer) as object), usage })
const conversationPath = "/v1/messages?beta=true"
const provider = Http.createServer((request, response) => {
  request.resume()
  const body = request.url === conversationPath ? turnOfConversation : answer
  request.on("end", () => response.writeHead(200, { "content-type": "application/json" }).end(body))
})
const bodyOf = (sentences: number): string =>
  JSON.stringify({
    model: "claude-sonnet-5",
    max_tokens: 400,
    messages: Array.from({ length: 8 }, () => ({ role: "user", content: sentence.repeat(sentences / 8) }))
  })
const headers = { "content-type": "application/json", "x-api-key": "any", "anthropic-version": "2023-06-01" }

// -----------------------------------------------------------------------------
// Turns
// -----------------------------------------------------------------------------

const flags = [
  "--conditions=@floodgate/source",
  "--expose-gc",
  "--max-semi-space-size=256",
  "--min-semi-space-size=256",
  // The same in each run: compiling and collecting on the only thread, and no random order of tables.
  "--single-threaded",
  "--predictable",
  "--hash-seed=1",
  "--random-seed=1"
]

/** The process of one checkout. */
class Side {
  private readonly checkout: string
  private readonly url: string
  private readonly worker: string
  private readonly counts: string
  private child: ChildProcess | undefined
  private pool: Pool | undefined
  private readonly requests = new Map<string, Conversations>()

  constructor(checkout: string, url: string) {
    this.checkout = checkout
    this.url = url
    this.worker = join(checkout, "benchmark/judge/worker.ts")
    this.counts = join(checkout, "counts")
  }

  /** The first process only compiles what the second loads, which saves a minute: under Valgrind all is slower by fifty times. */
  async begin(): Promise<void> {
    this.fork({ execArgv: flags })
    await this.received()
    const ended = once(this.child!, "exit")
    this.child!.disconnect()
    await ended
    mkdirSync(this.counts, { recursive: true })
    this.fork(countsInstructions ? this.counting() : { execArgv: flags })
    this.pool = new Pool(await this.received<string>(), { connections: 1 })
  }

  private counting(): ForkOptions {
    const outputs = [`--callgrind-out-file=${join(this.counts, "out")}`, `--log-file=${join(this.counts, "log")}`]
    const valgrind = ["--tool=callgrind", "--dump-before=uv_os_getpriority", "--dump-line=no", ...outputs]
    return { execPath: "valgrind", execArgv: [...valgrind, process.execPath, ...flags] }
  }

  private fork(options: ForkOptions): void {
    const env = { ...process.env, NODE_COMPILE_CACHE: join(this.checkout, "compiled") }
    this.child = fork(this.worker, [this.url], { ...options, env, cwd: this.checkout })
  }

  /** Receives the next message of the process. It may take minutes on a busy machine, but a process that waits uses no processor time. */
  private received<A>(): Promise<A> {
    const child = this.child!
    return new Promise((resolve, reject) => {
      let used = ""
      const timer = setInterval(() => {
        const now = execFileSync("ps", ["-o", "time=", "-p", String(child.pid)], { encoding: "utf8" })
        if (now === used) reject(new Error("its process waits for something"))
        used = now
      }, stallMillis)
      const ended = (code: number | null) => reject(new Error(`its process ended with ${code}`))
      child.once("exit", ended)
      child.once("message", (message) => {
        clearInterval(timer)
        child.off("exit", ended)
        resolve(message as A)
      })
    })
  }

  private ask(question: Question): Promise<Figure> {
    this.child!.send(question)
    return this.received()
  }

  async turn(path: Path, count: number): Promise<Cost> {
    if (!isOverHttp(path)) return this.costOf(await this.ask({ path: path.name, count }), count, false)
    const bodies = this.bodiesOf(path, count)
    await this.ask({ count })
    await this.request(path, bodies)
    return this.costOf(await this.ask({ count: 0 }), count, isBusy)
  }

  private costOf({ bytes, mark }: Figure, count: number, isUnclear: boolean): Cost {
    return { instructions: isUnclear ? Number.NaN : this.countOf(mark) / count, bytes: bytes / count }
  }

  private bodiesOf({ conversation, name, sentences }: Path, count: number): ReadonlyArray<string> {
    if (conversation === undefined) return Array.from({ length: count }, () => bodyOf(sentences!))
    const requests = this.requests.get(name) ?? new Conversations(conversation)
    this.requests.set(name, requests)
    return requests.next(count)
  }

  private async request({ conversation, isCapped, name }: Path, bodies: ReadonlyArray<string>): Promise<void> {
    const path = conversation === undefined ? "/v1/messages" : conversationPath
    const all = isCapped === true ? { ...headers, "x-floodgate-agent": cappedAgent } : headers
    for (const body of bodies) {
      const response = await this.pool!.request({ path, method: "POST", headers: all, body })
      await response.body.dump({ limit: 1e9 })
      if (response.statusCode !== 200) throw new Error(`${name}: status ${response.statusCode}`)
    }
  }

  /** Reads the count that Valgrind has written at a mark. */
  private countOf(mark: number): number {
    if (!countsInstructions) return Number.NaN
    const found = /^totals: (\d+)/m.exec(readFileSync(join(this.counts, `out.${mark}`), "utf8"))
    for (const file of readdirSync(this.counts)) if (file !== "log") rmSync(join(this.counts, file))
    return Number(found![1])
  }

  end(): void {
    this.child?.kill("SIGKILL")
    void this.pool?.destroy()
  }
}

const measure = async (side: Side, path: Path): Promise<ReadonlyArray<Cost>> => {
  // Nearly everything is compiled in these.
  await side.turn(path, path.count * warmups)
  const costs: Array<Cost> = []
  for (let n = 0; n < turns; n++) costs.push(await side.turn(path, path.count))
  return costs
}

// -----------------------------------------------------------------------------
// Verdict
// -----------------------------------------------------------------------------

const shown = ({ high, low, median }: Spread): string =>
  Number.isNaN(median) ? "" : `${median.toFixed(3)} (${low.toFixed(3)}-${high.toFixed(3)})`

const rounded = ({ high, low, median }: Spread): Spread => ({
  low: +low.toFixed(4),
  median: +median.toFixed(4),
  high: +high.toFixed(4)
})

rmSync(folder, { recursive: true, force: true })
await new Promise<void>((resolve) => provider.listen({ port: 0, host: "127.0.0.1", backlog: 1_024 }, resolve))
const url = `http://127.0.0.1:${(provider.address() as AddressInfo).port}`
const folders = { ours: checkedOut(commit, "ours"), base: checkedOut(against, "base") }
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(130))

/** The measurements of a path. */
interface Judged extends Readonly<Record<keyof Cost, Compared>> {
  readonly path: Path
  readonly said: ReturnType<typeof sentences>
}

/** Compares paths in two new processes. */
const compared = async (paths: ReadonlyArray<Path>): Promise<ReadonlyArray<Judged>> => {
  progress(`${ours} beside ${against}: starting${countsInstructions ? " under Valgrind" : ""}`)
  const sides = [new Side(folders.ours, url), new Side(folders.base, url)]
  const end = (): void => sides.forEach((side) => side.end())
  process.once("exit", end)
  await Promise.all(sides.map((side) => side.begin()))
  const found: Array<Judged> = []
  for (const [n, path] of paths.entries()) {
    progress(`${path.name}, ${n + 1} of ${paths.length}`)
    const [own = [], others = []] = await Promise.all(sides.map((side) => measure(side, path))).catch((error) =>
      fail(`${path.name}: ${error.message}`)
    )
    const both = { instructions: compare(own, others, "instructions"), bytes: compare(own, others, "bytes") }
    found.push({ path, ...both, said: sentences(path.name, against, both) })
  }
  end()
  process.off("exit", end)
  return found
}

const first = await compared(paths)
const suspects = first.filter(({ said }) => said.worse.length > 0)
if (suspects.length > 0) progress("worse, so once more in new processes")
const again = suspects.length === 0 ? [] : await compared(suspects.map(({ path }) => path))
const found = first.map((one) => again.find(({ path }) => path === one.path) ?? one)

const worse = found.flatMap(({ said }) => said.worse)
const unclear = found.flatMap(({ said }) => said.unclear)
const rows = found.map(({ bytes, instructions, path, said }) => [
  path.name,
  Number.isNaN(instructions.now) ? "" : (instructions.now / 1_000).toFixed(1),
  shown(instructions.ratio),
  (bytes.now / 1_024).toFixed(1),
  shown(bytes.ratio),
  said.word
])
const figures: Record<string, RecordedFigure> = {}
for (const { bytes, instructions, path } of found) {
  figures[path.name] = {
    instructions: Math.round(instructions.now),
    byInstructions: rounded(instructions.ratio),
    bytes: Math.round(bytes.now),
    byBytes: rounded(bytes.ratio)
  }
}
console.log(`\n${ours} beside ${against}; Node ${process.versions.node}\n`)
console.log(tableOf(["an operation", "1,000 instructions", "to it", "KB", "to it", ""], rows))
if (values.record) {
  const line: RecordedFigures = { commit: ours, against, node: process.versions.node, figures }
  appendFileSync(figuresFile, `${JSON.stringify(line)}\n`)
  console.log("\nappended to benchmark/figures.jsonl")
}
rmSync(folder, { recursive: true, force: true })
for (const each of [...worse, ...unclear]) console.error(`judge: ${each}`)
if (worse.length > 0) process.exit(1)
process.exit(unclear.length > 0 ? 2 : 0)
