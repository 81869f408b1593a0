/**
 * A sample of bugs outside the law: mutants of the code around admission and pacing, the same number from each part and as many of
 * each kind as there are. A seed chooses them by the text of the changed line, so a change elsewhere leaves the others as they are.
 */
import { createHash } from "node:crypto"
import { copyFileSync, existsSync, globSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { spawnSync } from "node:child_process"
import { dirname, join } from "node:path"
import ts from "typescript6"
import { type Change, isInFunction, kinds, type Mutant, mutate, operatorsOf } from "./mutants.ts"

const root = join(import.meta.dirname, "../..")

/** The parts that are sampled. A file belongs to the first that names it. */
const parts: ReadonlyArray<readonly [name: string, globs: ReadonlyArray<string>]> = [
  [
    "places",
    [
      "src/Places.ts",
      "src/places/*.ts",
      "src/call/{place,placed,located}.ts",
      "src/http/places.ts",
      "packages/gateway/src/places.ts"
    ]
  ],
  ["call", ["src/{call,agents,money}/**/*.ts"]],
  ["http", ["src/http/**/*.ts"]],
  ["sharing", ["src/sharing/**/*.ts"]],
  ["gateway", ["packages/gateway/src/**/*.ts"]],
  ["redis", ["packages/redis/src/**/*.ts"]],
  ["promise", ["src/adapters/promise/**/*.ts"]]
]

export interface Bug extends Mutant {
  readonly id: string
  readonly part: string
}

const isNothing = (node: ts.Node): boolean => node.getText() === "undefined" || node.getText() === "Effect.void"

const isReturned = ({ parent }: ts.Node, node: ts.Node): boolean =>
  (ts.isReturnStatement(parent) && parent.expression === node) || (ts.isArrowFunction(parent) && parent.body === node)

const inside = (node: ts.Node): ts.Node => (ts.isParenthesizedExpression(node.parent) ? inside(node.parent) : node)

/** A property of an object that a call gets or a function returns. */
const isPassed = (node: ts.Node): boolean => {
  if (!ts.isPropertyAssignment(node) && !ts.isShorthandPropertyAssignment(node)) return false
  const object = inside(node.parent)
  return (ts.isCallExpression(object.parent) && object.parent.expression !== object) || isReturned(object, object)
}

/** Two arguments that have the same form may have changed places; the last one may be forgotten. */
const argumentsOf = (node: ts.Node): ReadonlyArray<Change> => {
  if (!ts.isCallExpression(node) || node.arguments.length < 2) return []
  if ((node.flags & ts.NodeFlags.OptionalChain) !== 0 || node.expression.kind === ts.SyntaxKind.SuperKeyword) return []
  const args = node.arguments.map((each) => each.getText())
  const [first, second] = node.arguments as unknown as [ts.Node, ts.Node]
  const lists = [args.slice(0, -1)]
  const isOrdered = !node.expression.getText().startsWith("Math.")
  if (isOrdered && first.kind === second.kind && ts.isIdentifier(first))
    lists.push([args[1]!, args[0]!, ...args.slice(2)])
  return lists.map((list) => {
    const whole = `${node.expression.getText()}(${list.join(", ")})`
    return { kind: "argument", what: node, is: whole, whole }
  })
}

const changesOf = (node: ts.Node): ReadonlyArray<Change> => {
  if (!isInFunction(node)) return []
  const flipped: Array<Change> = []
  if (node.kind === ts.SyntaxKind.TrueKeyword || node.kind === ts.SyntaxKind.FalseKeyword) {
    const is = String(node.kind === ts.SyntaxKind.FalseKeyword)
    flipped.push({ kind: "argument", what: node, is, whole: is })
  } else if (isReturned(node, node) && !isNothing(node) && !ts.isBlock(node)) {
    flipped.push({ kind: "return", what: node, is: "undefined", whole: "undefined" })
  }
  return [...operatorsOf(node), ...argumentsOf(node), ...flipped]
}

const isSuper = (node: ts.Node): boolean => node.getText().startsWith("super(")

const isRemoved = (node: ts.Node): boolean =>
  isInFunction(node) &&
  !isSuper(node) &&
  (ts.isExpressionStatement(node) || ts.isThrowStatement(node) || isPassed(node))

const filesOf = (globs: ReadonlyArray<string>): ReadonlyArray<string> =>
  globs.flatMap((glob) => globSync(glob, { cwd: root }).toSorted())

const choice = (isChosen: (number: number) => boolean) => ({
  isSkipped: (node: ts.Node) => ts.isConditionalExpression(node) && !isInFunction(node),
  changesOf,
  isRemoved,
  isChosen
})

const isEndless = ({ code, is }: Mutant): boolean => is === "true" && code.includes("while (")

/** All bugs, their numbers by id, and how the source of a file gets some of them. */
const bugsOf = (seed: number) => {
  const of = new Map<string, string>()
  for (const [part, globs] of parts) for (const file of filesOf(globs)) if (!of.has(file)) of.set(file, part)
  const firsts = new Map<string, number>()
  const all: Array<Bug> = []
  const seen = new Map<string, number>()
  for (const [file, part] of of) {
    firsts.set(file, all.length)
    for (const mutant of mutate(
      join(root, file),
      all.length,
      choice(() => false),
      file
    ).mutants) {
      const text = [file, mutant.code, mutant.was, mutant.is].join("\n")
      const again = seen.get(text) ?? 0
      seen.set(text, again + 1)
      const id = createHash("sha256").update(`${seed}\n${text}\n${again}`).digest("hex").slice(0, 12)
      all.push({ ...mutant, id, part })
    }
  }
  const numbers = new Map(all.map((bug, number) => [bug.id, number]))
  const textWith = (file: string, ids: ReadonlySet<string>): string => {
    const chosen = new Set(Array.from(ids, (id) => numbers.get(id)!))
    return mutate(
      join(root, file),
      firsts.get(file)!,
      choice((number) => chosen.has(number)),
      file
    ).text
  }
  return {
    candidates: all.filter((bug) => !isEndless(bug)).toSorted((a, b) => (a.id < b.id ? -1 : 1)),
    numbers,
    textWith
  }
}

/** The first bugs of each kind in turn, and at most one of a line. */
const spread = (candidates: ReadonlyArray<Bug>, size: number): ReadonlyArray<Bug> => {
  const queues = kinds.map((kind) => candidates.filter((bug) => bug.kind === kind))
  const lines = new Set<string>()
  const chosen: Array<Bug> = []
  while (chosen.length < size && queues.some((queue) => queue.length > 0)) {
    for (const queue of queues) {
      const bug = queue.shift()
      const line = `${bug?.file}:${bug?.line}`
      if (bug === undefined || lines.has(line) || chosen.length === size) continue
      lines.add(line)
      chosen.push(bug)
    }
  }
  return chosen
}

const tsconfig = {
  extends: "./tsconfig.json",
  include: ["src", "packages/gateway/src", "packages/redis/src"],
  compilerOptions: { noUnusedLocals: false, noUnusedParameters: false }
}

/** The files of a copy that do not compile. */
const withTypeErrors = (copy: string): ReadonlySet<string> => {
  const { stdout } = spawnSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "tsconfig.bugs.json"], {
    cwd: copy,
    encoding: "utf8"
  })
  return new Set(stdout.split("\n").map((line) => line.split("(")[0]!))
}

/** The file in which runs keep what they learned about what compiles. A bug is known by its id and the text of its file. */
const cache = join(root, "node_modules/.cache/floodgate-bugs.json")

export interface Sample {
  readonly bugs: ReadonlyMap<number, Bug>
  /** The sources of their files, with all of them. */
  readonly texts: ReadonlyMap<string, string>
}

/** Finds out by the compiler which of the bugs that `wanted` names compile. */
const compiling = (
  copy: string,
  textWith: ReturnType<typeof bugsOf>["textWith"],
  wanted: (compiles: (bug: Bug) => boolean | undefined, factor: number) => ReadonlyArray<Bug>
): ReadonlyArray<Bug> => {
  const known = new Map<string, boolean>(existsSync(cache) ? JSON.parse(readFileSync(cache, "utf8")) : [])
  const hashes = new Map<string, string>()
  const keyOf = ({ file, id }: Bug): string => {
    const hash =
      hashes.get(file) ??
      createHash("sha256")
        .update(readFileSync(join(root, file)))
        .digest("hex")
        .slice(0, 12)
    hashes.set(file, hash)
    return `${id} ${hash}`
  }
  const compiles = (bug: Bug): boolean | undefined => known.get(keyOf(bug))
  writeFileSync(join(copy, "tsconfig.bugs.json"), JSON.stringify(tsconfig))
  while (wanted(compiles, 1).some((bug) => compiles(bug) === undefined)) {
    // One bug for each file, so that an error tells whose it is.
    const open = new Map(
      wanted(compiles, 1.5)
        .filter((bug) => compiles(bug) === undefined)
        .toReversed()
        .map((bug) => [bug.file, bug])
    )
    const declared = "declare const $mutant: (number: number) => boolean; "
    for (const [file, { id }] of open) writeFileSync(join(copy, file), declared + textWith(file, new Set([id])))
    const wrong = withTypeErrors(copy)
    for (const [file, bug] of open) {
      known.set(keyOf(bug), !wrong.has(file))
      copyFileSync(join(root, file), join(copy, file))
    }
    mkdirSync(dirname(cache), { recursive: true })
    writeFileSync(cache, JSON.stringify([...known]))
  }
  return wanted(compiles, 1)
}

/**
 * The sample that a seed chooses, of bugs that compile: the compiler finds the others. `copy` is a copy of the repository, which is left
 * as it was.
 */
export const sample = (copy: string, seed: number, count: number): Sample => {
  const all = bugsOf(seed)
  const wanted: Parameters<typeof compiling>[2] = (compiles, factor) =>
    parts.flatMap(([part], n) => {
      const size = Math.floor(count / parts.length) + (n < count % parts.length ? 1 : 0)
      const fit = all.candidates.filter((bug) => bug.part === part && compiles(bug) !== false)
      return spread(fit, Math.ceil(size * factor))
    })
  return sampleOf(all, compiling(copy, all.textWith, wanted))
}

/** The bugs of an earlier sample that the code still allows. */
export const again = (seed: number, ids: ReadonlySet<string>): Sample => {
  const all = bugsOf(seed)
  return sampleOf(
    all,
    all.candidates.filter(({ id }) => ids.has(id))
  )
}

const sampleOf = ({ numbers, textWith }: ReturnType<typeof bugsOf>, found: ReadonlyArray<Bug>): Sample => {
  const ids = new Set(found.map(({ id }) => id))
  const files = new Set(found.map(({ file }) => file))
  return {
    bugs: new Map(found.map((bug) => [numbers.get(bug.id)!, bug])),
    texts: new Map(Array.from(files, (file) => [file, textWith(file, ids)]))
  }
}
