/**
 * Mutation of the rules of admission: changes one operator, condition or statement of `src/admission` at a time, and runs
 * the fast tests of it. A mutant that no test notices survives; the score is the part that does not.
 *
 *     npm run mutate                            every mutant
 *     npm run mutate -- --every 5               each fifth
 *     npm run mutate -- --at cap.ts,law.ts:120  those of some files or lines
 *     npm run mutate -- --again FILE            those that FILE names, which is what an earlier run has printed
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
/** A mutant whose tests take so many times as long as those of the code as it is does not end. */
const patience = 5

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
      testTimeout: 600_000,
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

/** What became of a mutant: a test noticed it, its tests did not end, or nobody noticed. */
type Fate = "found" | "endless" | "survived"

/** A worker, which is replaced when a mutant does not end. */
class Worker {
  private child: ChildProcess | undefined = undefined

  private reply(): Promise<Fate> {
    const child = this.child!
    return new Promise((resolve) => {
      const hear = (isFound: unknown): void => {
        child.off("exit", end)
        resolve(isFound === true ? "found" : "survived")
      }
      const end = (): void => {
        child.off("message", hear)
        resolve("endless")
      }
      child.once("message", hear).once("exit", end)
    })
  }

  /** Tries a mutant; `null` is the code as it is. */
  async try(mutant: Mutant | null, millis: number): Promise<Fate> {
    if (this.child === undefined) {
      const options = { cwd: root, stdio: ["ignore", "ignore", "inherit", "ipc"] as never }
      this.child = fork(import.meta.filename, ["--worker"], options)
      await this.reply()
    }
    const timer = setTimeout(() => this.end(), Math.min(millis, 2 ** 31 - 1))
    this.child.send(mutant as object)
    const fate = await this.reply()
    clearTimeout(timer)
    return fate
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
  const again = argument("--again")
  const named = again === undefined ? undefined : readFileSync(again, "utf8").split("\n")
  const every = Number(argument("--every") ?? 1)
  const files = readdirSync(join(root, folder))
  const mutants = files
    .flatMap(mutantsOf)
    .filter(({ file, line }) => places === undefined || places.includes(file) || places.includes(`${file}:${line}`))
    .filter((mutant) => named === undefined || named.some((line) => line.endsWith(nameOf(mutant))))
    .filter((_, n) => n % every === 0)
  if (process.argv.includes("--list")) return console.log(mutants.map(nameOf).join("\n"))
  const begun = performance.now()
  const seconds = (): string => `${((performance.now() - begun) / 1_000).toFixed(0)} s`
  const workers = Array.from({ length: Math.min(availableParallelism(), mutants.length) }, () => new Worker())
  if ((await workers[0]!.try(null, Infinity)) === "found") throw new Error("the tests fail without a mutant")
  const millis = patience * (performance.now() - begun)
  const fates = new Map<Mutant, Fate>()
  let next = 0
  const run = async (worker: Worker): Promise<void> => {
    for (let mutant = mutants[next++]; mutant !== undefined; mutant = mutants[next++]) {
      const fate = await worker.try(mutant, millis)
      fates.set(mutant, fate)
      if (fate !== "found")
        console.log(`${fates.size} of ${mutants.length} in ${seconds()}: ${fate}: ${nameOf(mutant)}`)
    }
    worker.end()
  }
  await Promise.all(workers.map(run))
  const report = (name: string, of: ReadonlyArray<Mutant>): void => {
    const count = (fate: Fate): number => of.filter((mutant) => fates.get(mutant) === fate).length
    const score = ((100 * (of.length - count("survived"))) / of.length).toFixed(1)
    const counts = `${count("found")} found, ${count("endless")} endless, ${count("survived")} survived`
    if (of.length > 0) console.log(`${name.padEnd(14)} ${counts} of ${of.length}: ${score} %`)
  }
  console.log("")
  for (const name of files) {
    report(
      name,
      mutants.filter(({ file }) => file === name)
    )
  }
  report("all", mutants)
  console.log(`in ${seconds()}`)
}

await (process.argv.includes("--worker") ? work() : main())
