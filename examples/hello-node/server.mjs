// Answers POST /html with a Markdown text as HTML.
import { createServer } from 'node:http';
import { marked } from 'marked';

createServer(async (request, response) => {
  let body = '';
  for await (const part of request) body += part;
  let status = 200;
  let answer;
  try {
    answer = { html: marked.parse(JSON.parse(body).text) };
  } catch (problem) {
    status = 400;
    answer = { error: problem.message.split('\n')[0] };
  }
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(answer));
}).listen(Number(process.env.PORT), '127.0.0.1');
