/**
 * Counts what the house rules limit: the lines of code of each folder, the imports that cross folders, circles of imports, and
 * words with several meanings.
 *
 *     node scripts/house.ts            this checkout
 *     node scripts/house.ts ../other   another one, for a comparison
 */
import { globSync, readFileSync } from "node:fs"
import { dirname, join, normalize } from "node:path"
import { parseArgs } from "node:util"
import ts from "typescript6"

const { positionals } = parseArgs({ allowPositionals: true })
const root = positionals[0] ?? join(import.meta.dirname, "..")

const files = globSync(["src/**/*.ts", "packages/*/src/**/*.ts"], { cwd: root }).sort()
const sources = new Map(
  files.map((file) => [
    file,
    ts.createSourceFile(file, readFileSync(join(root, file), "utf8"), ts.ScriptTarget.Latest, true)
  ])
)

/** The folder under `src`, or the package; public modules of the library belong to `src` itself. */
const folderOf = (file: string): string => /^(src\/\w+(?=\/)|packages\/\w+|src)/.exec(file)![1]!

/** Lines that hold code, by the tokens on them. */
const linesOf = (source: ts.SourceFile): number => {
  const lines = new Set<number>()
  const visit = (node: ts.Node): void => {
    if (node.getChildCount() > 0) return node.getChildren().forEach(visit)
    if (node.kind === ts.SyntaxKind.EndOfFileToken || node.kind >= ts.SyntaxKind.FirstJSDocNode) return
    for (const position of [node.getStart(), node.end]) lines.add(source.getLineAndCharacterOfPosition(position).line)
  }
  source.statements.forEach(visit)
  return lines.size
}

const importsOf = (source: ts.SourceFile): ReadonlyArray<string> =>
  [...source.text.matchAll(/(?:from|import\()\s*"(\.[^"]+)"/g)]
    .map(([, path]) => normalize(join(dirname(source.fileName), path!)))
    .filter((file) => sources.has(file))

/** Groups of files that reach each other. */
const circles = (): ReadonlyArray<ReadonlyArray<string>> => {
  const reached = new Map(files.map((file) => [file, reach(file)]))
  const groups = files.map((file) =>
    files.filter((other) => reached.get(file)!.has(other) && reached.get(other)!.has(file))
  )
  return groups.filter((group, index) => group.length > 0 && group[0] === files[index])
}

const reach = (file: string): ReadonlySet<string> => {
  const seen = new Set<string>()
  const open = [file]
  for (const next of open) {
    for (const from of importsOf(sources.get(next)!)) {
      if (!seen.has(from)) open.push(from)
      seen.add(from)
    }
  }
  return seen
}

const isType = (node: ts.Node): node is ts.ClassDeclaration | ts.InterfaceDeclaration | ts.TypeAliasDeclaration =>
  ts.isClassDeclaration(node) || ts.isInterfaceDeclaration(node) || ts.isTypeAliasDeclaration(node)

/** Names of types that several files declare. `Options` is what each module calls its own. */
const words = (): ReadonlyArray<readonly [word: string, files: ReadonlyArray<string>]> => {
  const places = Map.groupBy(
    [...sources].flatMap(([file, { statements }]) =>
      statements.filter(isType).map(({ name }) => ({ file, word: name!.text }))
    ),
    ({ word }) => word
  )
  return [...places]
    .map(([word, uses]) => [word, [...new Set(uses.map(({ file }) => file))]] as const)
    .filter(([word, { length }]) => length > 1 && word !== "Options")
    .sort(([one], [other]) => (one < other ? -1 : 1))
}

const folders = Map.groupBy(files, folderOf)
for (const [folder, own] of [...folders].sort()) {
  const lines = own.reduce((sum, file) => sum + linesOf(sources.get(file)!), 0)
  console.log(
    `${folder.padEnd(20)} ${`${own.length}`.padStart(3)} files ${lines.toLocaleString("en").padStart(7)} lines of code`
  )
}
const crossing = files.flatMap((file) =>
  importsOf(sources.get(file)!).filter((from) => folderOf(from) !== folderOf(file))
)
console.log(`\n${folders.size} folders, ${files.length} files, ${crossing.length} imports across folders`)
const found = circles()
console.log(`${found.length} circles of imports${found.map((group) => `\n  ${group.join(", ")}`).join("")}`)
const several = words()
console.log(`${several.length} words with several meanings`)
for (const [word, places] of several) console.log(`  ${word}: ${places.join(", ")}`)
