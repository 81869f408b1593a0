/**
 * Mutation of the rules of admission: changes one operator, condition or statement of `src/admission` at a time, and runs
 * the fast tests of it. A mutant that no test notices survives; the score is the part that does not.
 *
 *     npm run mutate                            every mutant
 *     npm run mutate -- --every 5               each fifth
 *     npm run mutate -- --at cap.ts,law.ts:120  those of some files or lines
 *     npm run mutate -- --list                  says what would be changed, and runs nothing
 *
 * Constants stay as they are, because measurements choose them and not rules. A mutant that does not end counts as found.
 */
import { type ChildProcess, fork } from "node:child_process"
import { readdirSync, readFileSync } from "node:fs"
import { availableParallelism } from "node:os"
import { join } from "node:path"
import ts from "typescript6"

const root = join(import.meta.dirname, "..")
const folder = "src/admission"
/** The tests, those that notice soonest first. */
const folders = ["test/admission", "test/proof"]
/** A mutant whose tests take longer does not end. */
const patienceMillis = 90_000

interface Mutant {
  readonly file: string
  readonly line: number
  readonly from: number
  readonly to: number
  readonly was: string
  readonly is: string
}

// -----------------------------------------------------------------------------
// What can be changed
// -----------------------------------------------------------------------------

const { SyntaxKind } = ts

const operators = new Map<ts.SyntaxKind, string>([
  [SyntaxKind.LessThanToken, "<="],
  [SyntaxKind.LessThanEqualsToken, "<"],
  [SyntaxKind.GreaterThanToken, ">="],
  [SyntaxKind.GreaterThanEqualsToken, ">"],
  [SyntaxKind.EqualsEqualsEqualsToken, "!=="],
  [SyntaxKind.ExclamationEqualsEqualsToken, "==="],
  [SyntaxKind.PlusToken, "-"],
  [SyntaxKind.MinusToken, "+"],
  [SyntaxKind.AsteriskToken, "/"],
  [SyntaxKind.SlashToken, "*"],
  [SyntaxKind.AmpersandAmpersandToken, "||"],
  [SyntaxKind.BarBarToken, "&&"],
  [SyntaxKind.PlusEqualsToken, "-="],
  [SyntaxKind.MinusEqualsToken, "+="],
  [SyntaxKind.AsteriskEqualsToken, "/="]
])

const others = new Map([
  ["Math.min", "Math.max"],
  ["Math.max", "Math.min"]
])

/** A constant at the top of a module. */
const isConstant = (node: ts.Node): boolean =>
  ts.isVariableStatement(node) &&
  ts.isSourceFile(node.parent) &&
  node.declarationList.declarations.every(
    ({ initializer }) => initializer === undefined || !ts.isArrowFunction(initializer)
  )

const mutantsOf = (file: string): Array<Mutant> => {
  const text = readFileSync(join(root, folder, file), "utf8")
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true)
  const mutants: Array<Mutant> = []
  const change = (node: ts.Node, is: string): void => {
    const from = node.getStart()
    const line = source.getLineAndCharacterOfPosition(from).line + 1
    mutants.push({ file, line, from, to: node.end, was: text.slice(from, node.end), is })
  }
  const decide = (condition: ts.Expression): void => {
    change(condition, "true")
    change(condition, "false")
  }
  const visit = (node: ts.Node): void => {
    if (isConstant(node) || ts.isTypeNode(node) || ts.isInterfaceDeclaration(node)) return
    if (ts.isBinaryExpression(node)) {
      const other = operators.get(node.operatorToken.kind)
      if (other !== undefined) change(node.operatorToken, other)
    }
    if (ts.isPropertyAccessExpression(node)) {
      const other = others.get(node.getText())
      if (other !== undefined) change(node, other)
    }
    if (ts.isPrefixUnaryExpression(node) && node.operator === SyntaxKind.ExclamationToken) {
      change(node, node.operand.getText())
    }
    if (ts.isIfStatement(node) || ts.isWhileStatement(node)) decide(node.expression)
    if (ts.isConditionalExpression(node)) decide(node.condition)
    if (ts.isExpressionStatement(node)) change(node, ";")
    ts.forEachChild(node, visit)
  }
  visit(source)
  return mutants
}

// -----------------------------------------------------------------------------
// A process that tries mutants
// -----------------------------------------------------------------------------

const work = async (): Promise<void> => {
  const { createVitest } = await import("vitest/node")
  let current: Mutant | undefined
  /** The tests of what is mutated notice soonest. */
  const rankOf = (path: string): number =>
    path.endsWith(`/${current?.file.replace(".ts", ".test.ts")}`)
      ? -1
      : folders.findIndex((each) => path.includes(`/${each}/`))
  class OwnFirst {
    shard = <A>(files: A): A => files
    sort = <A extends { readonly moduleId: string }>(files: ReadonlyArray<A>): Array<A> =>
      files.toSorted((a, b) => rankOf(a.moduleId) - rankOf(b.moduleId))
  }
  const resolve = { conditions: ["@floodgate/source", "module", "node", "import", "default"] }
  const vitest = await createVitest(
    {
      config: false,
      fsModuleCache: false,
      root,
      watch: false,
      bail: 1,
      reporters: [{}],
      pool: "threads",
      maxWorkers: 1,
      isolate: false,
      testTimeout: patienceMillis,
      setupFiles: ["test/setup.ts"],
      include: folders.map((each) => `${each}/*.test.ts`),
      // These are about other mutants.
      exclude: ["**/{mutants,twins}.test.ts"],
      sequence: { sequencer: OwnFirst as never }
    },
    {
      resolve,
      ssr: { resolve },
      plugins: [
        {
          name: "mutant",
          enforce: "pre",
          transform: (code, id) =>
            current !== undefined && id.endsWith(`/${folder}/${current.file}`)
              ? code.slice(0, current.from) + current.is + code.slice(current.to)
              : undefined
        }
      ]
    }
  )
  const files = await vitest.globTestSpecifications()
  const invalidate = (): void => {
    if (current !== undefined) vitest.invalidateFile(join(root, folder, current.file))
  }
  process.on("message", (mutant: Mutant | null) => {
    invalidate()
    current = mutant ?? undefined
    invalidate()
    void vitest
      .runTestSpecifications(files)
      .then(({ testModules, unhandledErrors }) =>
        process.send!(unhandledErrors.length > 0 || testModules.some((module) => !module.ok()))
      )
  })
  process.send!("ready")
}

// -----------------------------------------------------------------------------
// All of them
// -----------------------------------------------------------------------------

/** A worker, which is replaced when a mutant does not end. */
class Worker {
  private child: ChildProcess | undefined = undefined

  /** What it answers; an end without an answer says that the mutant does not end. */
  private reply(): Promise<unknown> {
    const child = this.child!
    return new Promise((resolve) => {
      const hear = (answer: unknown): void => {
        child.off("message", hear).off("exit", end)
        resolve(answer)
      }
      const end = (): void => hear(true)
      child.on("message", hear).on("exit", end)
    })
  }

  /** Whether the tests notice a mutant; `null` is the code as it is. */
  async try(mutant: Mutant | null): Promise<boolean> {
    if (this.child === undefined) {
      const options = { cwd: root, stdio: ["ignore", "ignore", "inherit", "ipc"] as never }
      this.child = fork(import.meta.filename, ["--worker"], options)
      await this.reply()
    }
    const timer = setTimeout(() => this.end(), patienceMillis)
    this.child.send(mutant as object)
    const isFound = await this.reply()
    clearTimeout(timer)
    return isFound === true
  }

  end(): void {
    this.child?.kill("SIGKILL")
    this.child = undefined
  }
}

const argument = (name: string): string | undefined => {
  const at = process.argv.indexOf(name)
  return at === -1 ? undefined : process.argv[at + 1]
}

const nameOf = ({ file, is, line, was }: Mutant): string =>
  `${file}:${line}  ${was.replaceAll(/\s+/g, " ")}  ->  ${is === ";" ? "nothing" : is}`

const main = async (): Promise<void> => {
  const places = argument("--at")?.split(",")
  const every = Number(argument("--every") ?? 1)
  const files = readdirSync(join(root, folder))
  const mutants = files
    .flatMap(mutantsOf)
    .filter(({ file, line }) => places === undefined || places.includes(file) || places.includes(`${file}:${line}`))
    .filter((_, n) => n % every === 0)
  if (process.argv.includes("--list")) return console.log(mutants.map(nameOf).join("\n"))
  const begun = performance.now()
  const seconds = (): string => `${((performance.now() - begun) / 1_000).toFixed(0)} s`
  const workers = Array.from({ length: Math.min(availableParallelism(), mutants.length) }, () => new Worker())
  if (await workers[0]!.try(null)) throw new Error("the tests fail without a mutant")
  const survivors: Array<Mutant> = []
  let next = 0
  let tried = 0
  const run = async (worker: Worker): Promise<void> => {
    for (let mutant = mutants[next++]; mutant !== undefined; mutant = mutants[next++]) {
      const isFound = await worker.try(mutant)
      tried++
      if (isFound) continue
      survivors.push(mutant)
      console.log(`${tried} of ${mutants.length} in ${seconds()}: not noticed: ${nameOf(mutant)}`)
    }
    worker.end()
  }
  await Promise.all(workers.map(run))
  console.log("")
  for (const file of files) {
    const all = mutants.filter((mutant) => mutant.file === file).length
    if (all === 0) continue
    const left = survivors.filter((mutant) => mutant.file === file).length
    console.log(`${file.padEnd(14)} ${all - left} of ${all} found`)
  }
  const score = ((100 * (mutants.length - survivors.length)) / mutants.length).toFixed(1)
  console.log(`\n${mutants.length - survivors.length} of ${mutants.length} found: ${score} %, in ${seconds()}`)
}

await (process.argv.includes("--worker") ? work() : main())
