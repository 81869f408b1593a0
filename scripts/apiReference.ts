/**
 * Writes docs/api.md: every public module and its exports, each with the first sentence of its docstring.
 *
 * `npm run docs:api` writes it; test/docs.lint.test.ts compares it.
 */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import ts from "typescript6"
import { exportsOf, headerOf, namespacesOf, parse, publicModules, root, textOfDoc } from "../test/support/modules.ts"

interface Entry {
  readonly name: string
  readonly category: string
  readonly text: string
}

/** The first sentence of a docstring, in one line of Markdown. */
const firstSentence = (doc: string): string => {
  const paragraph = textOfDoc(doc).split(/\n\s*\n|\n(?=@|- )/)[0]!
  const line = paragraph
    .replace(/\s+/g, " ")
    .replace(/\{@link ([^}]*)\}/g, "`$1`")
    .replaceAll("|", "\\|")
  return line.startsWith("@") ? "" : (/^.*?[.!?](?=\s|$)/.exec(line)?.[0] ?? line)
}

const entryOf = (name: string, doc: string): Entry => ({
  name,
  category: /@category (.*)/.exec(doc)?.[1]?.trim() ?? "modules",
  text: firstSentence(doc)
})

/** The names of the functions and effects that a service or an interface has. */
const membersOf = (node: ts.Statement): ReadonlyArray<string> => {
  return shapeOf(node).flatMap((member) => {
    if (!ts.isPropertySignature(member) || member.type === undefined || member.questionToken !== undefined) return []
    const runs = ts.isFunctionTypeNode(member.type) || /^(Effect\.Effect|Stream\.Stream)</.test(member.type.getText())
    return runs ? [`\`${member.name.getText()}\``] : []
  })
}

/** The members of an interface, or of the shape in `class Name extends Context.Service<Name, Shape>`. */
const shapeOf = (node: ts.Statement): ReadonlyArray<ts.TypeElement> => {
  if (ts.isInterfaceDeclaration(node)) return node.members
  if (!ts.isClassDeclaration(node)) return []
  const call = node.heritageClauses?.[0]?.types[0]?.expression
  const made = call !== undefined && ts.isCallExpression(call) ? call.expression : undefined
  const shape = made !== undefined && ts.isCallExpression(made) ? made.typeArguments?.[1] : undefined
  return shape !== undefined && ts.isTypeLiteralNode(shape) ? shape.members : []
}

/** The entries of a file's exports, re-exports included, in source order. */
const entriesOf = (file: string): ReadonlyArray<Entry> =>
  exportsOf(file).map(({ doc, name, namespace, node }) => {
    const entry = entryOf(name, doc)
    if (namespace !== undefined && entry.text === "")
      return { ...entry, text: firstSentence(headerOf(parse(namespace))) }
    const members = membersOf(node)
    return members.length === 0 ? entry : { ...entry, text: `${entry.text} Has ${members.join(", ")}.` }
  })

/** Merges overloads, and a type and a value of one name, into the first entry that has a docstring. */
const merged = (entries: ReadonlyArray<Entry>): Array<Entry> => {
  const byName = new Map<string, Entry>()
  for (const entry of entries) {
    const known = byName.get(entry.name)
    if (known === undefined || (known.text === "" && entry.text !== "")) byName.set(entry.name, entry)
  }
  return [...byName.values()]
}

/** Categories in the order in which readers need them: models and constructors, then operations, then errors. */
const order = [
  "modules",
  "services",
  "constructors",
  "layers",
  "combinators",
  "schedules",
  "running",
  "presets",
  "prices",
  "providers",
  "protocols",
  "getters",
  "references",
  "options",
  "models",
  "schemas",
  "errors"
]

const tableOf = (entries: ReadonlyArray<Entry>): string => {
  const categories = [...new Set(entries.map(({ category }) => category))].sort(
    (a, b) => order.indexOf(a) - order.indexOf(b)
  )
  const rows = categories.flatMap((category) =>
    entries
      .filter((entry) => entry.category === category)
      .map(({ name, text }, index) => `| ${index === 0 ? category : ""} | \`${name}\` | ${text} |`)
  )
  return ["| | export | |", "| --- | --- | --- |", ...rows].join("\n")
}

/** The page is part of the library's package, which has no sources of the others. */
const sourceOf = (file: string): string =>
  file.startsWith("packages/") ? `Source: \`${file}\`` : `[Source](../${file})`

const sectionOf = (title: string, file: string): Array<string> => [
  title,
  `${firstSentence(headerOf(parse(file)))} ${sourceOf(file)}`,
  tableOf(merged(entriesOf(file)))
]

/** The whole page. */
export const render = (): string => {
  const modules = publicModules().filter(({ name }) => name !== "floodgate")
  const sections = modules.flatMap(({ file, name }) => [
    ...sectionOf(`## ${name}`, file),
    ...namespacesOf(file).flatMap((inner) => sectionOf(`### ${inner.name}`, inner.file))
  ])
  return `# API reference

Every public module with its exports by category, the first sentence of each docstring, and the members of each service.
The docstrings have details, gotchas and tested examples. \`npm run docs:api\` generates this page.

The package's root exports the core modules by their names: \`import { Budget } from "floodgate"\` is
\`import * as Budget from "floodgate/Budget"\`.

${sections.join("\n\n")}
`
}

if (import.meta.main) writeFileSync(join(root, "docs/api.md"), render())
