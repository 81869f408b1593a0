/**
 * Turns the marked examples of the documentation into tests.
 *
 * Every fence that opens with "```ts doctest", in a docstring under src/ or in a Markdown file, becomes one test named
 * `file:line`; "```ts doctest continued" continues the fence before it. `expression // => value` asserts equality by
 * Effect's Equal, and so does `console.log(expression) // => value`. Imports are hoisted, and top-level await works.
 *
 * The tests are written to .doctest/, which git ignores. They are type-checked with everything else.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join, relative } from "node:path"
import ts from "typescript6"

const root = join(import.meta.dirname, "..")
const out = join(root, ".doctest")

interface Fence {
  readonly line: number
  readonly code: string
}

interface Binding {
  readonly local: string
  readonly text: string
  readonly typeOnly: boolean
}

interface Example {
  readonly name: string
  readonly bindings: ReadonlyArray<Binding>
  readonly effects: ReadonlyArray<string>
  readonly body: string
}

const walk = (directory: string, extension: string): Array<string> =>
  existsSync(directory)
    ? readdirSync(directory, { withFileTypes: true, recursive: true })
        .filter((entry) => entry.isFile() && entry.name.endsWith(extension))
        .map((entry) => join(entry.parentPath, entry.name))
        .sort()
    : []

const fencesOf = (file: string): Array<Fence> => {
  const prefix = file.endsWith(".ts") ? /^\s*\* ?/ : /^/
  const fences: Array<Fence> = []
  let open: { line: number; indent: string; lines: Array<string>; continued: boolean } | undefined
  readFileSync(file, "utf8")
    .split("\n")
    .forEach((raw, index) => {
      const line = raw.replace(prefix, "")
      if (open === undefined) {
        const start = /^(\s*)```ts\s(.*)$/.exec(line)
        if (
          start !== null &&
          /\bdoctest\b/.test(start[2]!) &&
          (file.endsWith(".md") || raw.trimStart().startsWith("*"))
        ) {
          open = { line: index + 1, indent: start[1]!, lines: [], continued: /\bcontinued\b/.test(start[2]!) }
        }
      } else if (line.trim() === "```") {
        const code = open.lines.join("\n")
        const before = open.continued ? fences.pop() : undefined
        if (open.continued && before === undefined) {
          throw new Error(`${relative(root, file)}:${open.line}: "continued" needs an example before it`)
        }
        // Empty lines take the place of the text in between, so that errors name the right line.
        const lines = before === undefined ? 0 : open.line - before.line - before.code.split("\n").length + 1
        fences.push(
          before === undefined
            ? { line: open.line, code }
            : { line: before.line, code: before.code + "\n".repeat(lines) + code }
        )
        open = undefined
      } else {
        // `*\/` is how a docstring spells the end of a comment.
        open.lines.push((line.startsWith(open.indent) ? line.slice(open.indent.length) : line).replaceAll("*\\/", "*/"))
      }
    })
  if (open !== undefined) throw new Error(`${relative(root, file)}:${open.line}: the fence is not closed`)
  return fences
}

const bindingsOf = (node: ts.ImportDeclaration): Array<Binding> => {
  const from = node.moduleSpecifier.getText()
  const clause = node.importClause
  if (clause === undefined) return []
  const whole = clause.phaseModifier === ts.SyntaxKind.TypeKeyword
  const bindings: Array<Binding> = []
  if (clause.name !== undefined) {
    bindings.push({ local: clause.name.text, text: `${clause.name.text} from ${from}`, typeOnly: whole })
  }
  const named = clause.namedBindings
  if (named !== undefined && ts.isNamespaceImport(named)) {
    bindings.push({ local: named.name.text, text: `* as ${named.name.text} from ${from}`, typeOnly: whole })
  } else if (named !== undefined) {
    for (const element of named.elements) {
      const imported = element.propertyName === undefined ? "" : `${element.propertyName.text} as `
      bindings.push({
        local: element.name.text,
        text: `{ ${imported}${element.name.text} } from ${from}`,
        typeOnly: whole || element.isTypeOnly
      })
    }
  }
  return bindings
}

const parse = (text: string, where: string): ts.SourceFile => {
  const source = ts.createSourceFile("example.ts", text, ts.ScriptTarget.Latest, true)
  const problems = (source as unknown as { parseDiagnostics: ReadonlyArray<ts.Diagnostic> }).parseDiagnostics
  if (problems.length > 0) {
    throw new Error(`${where}: ${ts.flattenDiagnosticMessageText(problems[0]!.messageText, " ")}\n${text}`)
  }
  return source
}

const exampleOf = (file: string, fence: Fence): Example => {
  const name = `${relative(root, file)}:${fence.line}`
  const source = parse(fence.code, name)
  const bindings: Array<Binding> = []
  const effects: Array<string> = []
  const edits: Array<{ start: number; end: number; text: string }> = []
  const seen = new Set<number>()

  const expectedAfter = (end: number): { value: string; end: number } | undefined => {
    const lineEnd = fence.code.indexOf("\n", end) === -1 ? fence.code.length : fence.code.indexOf("\n", end)
    const match = /^;?\s*\/\/ => (.*)$/.exec(fence.code.slice(end, lineEnd))
    if (match === null) return undefined
    parse(`(${match[1]!})`, `${name}: after "// =>"`)
    seen.add(end + match[0].indexOf("// =>"))
    return { value: match[1]!, end: lineEnd }
  }

  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node)) {
      bindings.push(...bindingsOf(node))
      if (node.importClause === undefined) effects.push(node.moduleSpecifier.getText())
      edits.push({ start: node.getStart(), end: node.end, text: "" })
      return
    }
    if (ts.canHaveModifiers(node)) {
      for (const modifier of ts.getModifiers(node) ?? []) {
        if (modifier.kind === ts.SyntaxKind.ExportKeyword) {
          edits.push({ start: modifier.getStart(), end: modifier.end + 1, text: "" })
        }
      }
    }
    if (ts.isExpressionStatement(node)) {
      const expected = expectedAfter(node.expression.end)
      if (expected !== undefined) {
        const call = node.expression
        const logged =
          ts.isCallExpression(call) && call.expression.getText() === "console.log" && call.arguments.length === 1
        const actual = logged ? call.arguments[0]! : node.expression
        edits.push({ start: node.getStart(), end: actual.getStart(), text: ";equal((" })
        edits.push({ start: actual.end, end: expected.end, text: `), (${expected.value}))` })
      }
    } else if (ts.isVariableStatement(node) && node.declarationList.declarations.length === 1) {
      const declaration = node.declarationList.declarations[0]!
      const expected = expectedAfter(node.end)
      if (expected !== undefined && ts.isIdentifier(declaration.name)) {
        edits.push({
          start: node.end,
          end: expected.end,
          text: `;equal(${declaration.name.text}, (${expected.value}))`
        })
      }
    }
    ts.forEachChild(node, visit)
  }
  visit(source)

  for (const match of fence.code.matchAll(/\/\/ => /g)) {
    if (!seen.has(match.index)) {
      const line = fence.line + fence.code.slice(0, match.index).split("\n").length
      throw new Error(`${relative(root, file)}:${line}: "// =>" must follow a whole expression statement`)
    }
  }

  let body = fence.code
  for (const edit of edits.sort((a, b) => b.start - a.start)) {
    body = body.slice(0, edit.start) + edit.text + body.slice(edit.end)
  }
  return { name, bindings, effects, body: body.trim() }
}

/** The examples of a file share one test file, unless they import different things under the same name. */
const grouped = (examples: ReadonlyArray<Example>): Array<Array<Example>> => {
  const groups: Array<{ names: Map<string, string>; examples: Array<Example> }> = []
  for (const example of examples) {
    const fits = groups.find(({ names }) =>
      example.bindings.every(({ local, text }) => (names.get(local) ?? text) === text)
    )
    const group = fits ?? { names: new Map<string, string>(), examples: [] }
    if (fits === undefined) groups.push(group)
    for (const { local, text } of example.bindings) group.names.set(local, text)
    group.examples.push(example)
  }
  return groups.map(({ examples }) => examples)
}

const render = (examples: ReadonlyArray<Example>): string => {
  const imports = new Map<string, boolean>()
  for (const { bindings } of examples) {
    for (const { text, typeOnly } of bindings) imports.set(text, typeOnly && (imports.get(text) ?? true))
  }
  const lines = [
    `import { assert as $assert, it as $it } from "@effect/vitest"`,
    `import * as $Equal from "effect/Equal"`,
    ...[...imports].map(([text, typeOnly]) => `import ${typeOnly ? "type " : ""}${text}`),
    ...new Set(examples.flatMap(({ effects }) => effects.map((from) => `import ${from}`))),
    "",
    "const equal = (actual: unknown, expected: unknown): void => {",
    "  if (!$Equal.equals(actual, expected)) $assert.deepStrictEqual(actual, expected)",
    "}"
  ]
  for (const { body, name } of examples) {
    lines.push("", `$it(${JSON.stringify(name)}, async () => {`, body, "})")
  }
  return lines.join("\n") + "\n"
}

const sources = [
  ...["src", "packages/gateway/src", "packages/redis/src", "packages/lab/src"].flatMap((folder) =>
    walk(join(root, folder), ".ts")
  ),
  ...readdirSync(root)
    .filter((file) => file.endsWith(".md") && file !== "CHANGELOG.md")
    .map((file) => join(root, file)),
  ...walk(join(root, "docs"), ".md"),
  join(root, "packages/gateway/README.md"),
  join(root, "packages/redis/README.md"),
  join(root, "packages/lab/README.md")
]

/** Examples of servers and stores open sockets, so they are tests of the system's tier. */
const isOfSystem = /from "(?:floodgate\/testing\/server|@floodgate\/\w+)"/

const wanted = new Map<string, string>()
let count = 0
for (const file of sources) {
  const examples = fencesOf(file).map((fence) => exampleOf(file, fence))
  count += examples.length
  grouped(examples).forEach((group, index) => {
    const base = relative(root, file).replaceAll(/[^A-Za-z0-9]+/g, "_")
    const text = render(group)
    const tier = isOfSystem.test(text) ? ".system" : ""
    wanted.set(`${base}${index === 0 ? "" : `_${index}`}${tier}.test.ts`, text)
  })
}

mkdirSync(out, { recursive: true })
for (const file of readdirSync(out)) if (!wanted.has(file)) rmSync(join(out, file))
for (const [file, text] of wanted) {
  const path = join(out, file)
  if (!existsSync(path) || readFileSync(path, "utf8") !== text) writeFileSync(path, text)
}
console.log(`doctest: ${count} examples in ${wanted.size} files`)
