/** Pages of the API: each export of a module with its signature, its docstring and its examples. Reads the sources. */
import ts from "typescript6"
import {
  exportsOf,
  headerOf,
  namespacesOf,
  packageFiles,
  parse,
  publicModules,
  textOfDoc
} from "../../../test/support/modules.ts"

/** A page of the API. */
export interface ApiPage {
  /** What a user imports. */
  readonly module: string
  readonly page: string
  readonly text: string
}

interface Export {
  readonly name: string
  readonly signature: string
  readonly doc: string
}

/** Links of docstrings as plain names. */
const withoutLinks = (text: string, quote: string): string =>
  text.replaceAll(/\{@link ([^}]*)\}/g, `${quote}$1${quote}`)

/** A docstring as Markdown: links become code, headings of its parts stay bold, and tags become sentences. */
export const markdownOf = (doc: string): string => {
  const [text = "", ...tags] = withoutLinks(textOfDoc(doc), "`").split(/^@(?=[a-z])/m)
  const valueOf = (name: string): string | undefined =>
    tags
      .find((tag) => tag.startsWith(`${name} `))
      ?.slice(name.length + 1)
      .trim()
  const since = valueOf("since")
  const defaultsTo = valueOf("default")
  const deprecated = valueOf("deprecated")
  const prose = text.trim().replaceAll("```ts doctest", "```ts")
  return [
    deprecated === undefined ? "" : `**Deprecated**: ${deprecated}`,
    prose,
    defaultsTo === undefined ? "" : `**Default**: ${defaultsTo}`,
    since === undefined ? "" : `Since ${since}.`
  ]
    .filter((part) => part !== "")
    .join("\n\n")
}

/** The schemas of the packages by name, which have the members of the types that are made from them. */
const schemas = new Map(
  packageFiles().flatMap((file) =>
    parse(file).statements.flatMap((statement) => {
      const [, name] = /^export const (\w+) = Schema\.Struct\(/.exec(statement.getText()) ?? []
      return name === undefined ? [] : [[name, statement] as const]
    })
  )
)

/** The schemas of other files that an interface is made from. */
const schemasIn = (node: ts.InterfaceDeclaration): ReadonlyArray<string> =>
  Array.from(node.getText().matchAll(/Type<typeof (?:\w+\.)?(\w+)>/g), ([, name]) => schemas.get(name!))
    .filter((schema) => schema !== undefined && schema.getSourceFile().fileName !== node.getSourceFile().fileName)
    .map((schema) => schema!.getText())

/** A declaration without what it does: the body of a function, or the value of a constant with a type. */
const signatureOf = (node: ts.Statement): string => {
  const text = (from: ts.Node, to: number): string => from.getSourceFile().text.slice(from.getStart(), to).trim()
  if (ts.isInterfaceDeclaration(node)) return [node.getText(), ...schemasIn(node)].join("\n\n")
  if (ts.isFunctionDeclaration(node)) return text(node, node.body?.getStart() ?? node.end)
  if (!ts.isVariableStatement(node)) return node.getText()
  const [declaration] = node.declarationList.declarations
  const { initializer, type } = declaration!
  if (initializer === undefined) return node.getText()
  if (type !== undefined) return text(node, type.end)
  if (ts.isArrowFunction(initializer)) return `${text(node, initializer.equalsGreaterThanToken.end)} ...`
  return initializer.getText().length < 400 ? node.getText() : `${text(node, initializer.getStart())}...`
}

const entriesOf = (file: string): ReadonlyArray<Export> =>
  exportsOf(file)
    .filter(({ namespace }) => namespace === undefined)
    .map(({ doc, name, node }) => ({ name, signature: signatureOf(node), doc }))

/** Overloads, and a type and a value of one name, in one entry. */
const merged = (all: ReadonlyArray<Export>): ReadonlyArray<Export> => {
  const byName = new Map<string, Export>()
  for (const entry of all) {
    const known = byName.get(entry.name)
    byName.set(
      entry.name,
      known === undefined
        ? entry
        : { ...known, doc: known.doc || entry.doc, signature: `${known.signature}\n\n${entry.signature}` }
    )
  }
  return [...byName.values()]
}

/** Comments of members are in the signature, where their units and defaults stand beside the types. */
const entryOf = ({ doc, name, signature }: Export): string =>
  [`## ${name}`, markdownOf(doc), `\`\`\`ts\n${withoutLinks(signature, "")}\n\`\`\``].join("\n\n")

/** What a reader looks for first, and what comes last. Other categories are between them. */
const first = ["services", "layers", "constructors", "running", "combinators", "getters"]
const last = ["options", "models", "schemas", "references", "errors"]

const rankOf = ({ doc }: Export): number => {
  const category = /@category ([a-z ]+)/.exec(doc)?.[1]?.trim() ?? ""
  return first.includes(category) ? first.indexOf(category) : first.length + 1 + last.indexOf(category)
}

const pageText = (title: string, file: string): string => {
  const entries = merged(entriesOf(file)).toSorted((a, b) => rankOf(a) - rankOf(b))
  return [`# ${title}`, markdownOf(headerOf(parse(file))), ...entries.map(entryOf), ""].join("\n\n")
}

const pathOf = (module: string): string => `api/${module.replace("@", "").replaceAll("/", "-")}.md`

/** The pages of all public modules. */
export const apiPages = (): ReadonlyArray<ApiPage> =>
  publicModules()
    .filter(({ name }) => name !== "floodgate")
    .flatMap(({ file, name }) => [
      ...(entriesOf(file).length === 0 ? [] : [{ module: name, page: pathOf(name), text: pageText(name, file) }]),
      ...namespacesOf(file).map((inner) => ({
        module: `${name}: ${inner.name}`,
        page: pathOf(`${name}-${inner.name}`),
        text: pageText(`${name}: ${inner.name}`, inner.file)
      }))
    ])
