import * as ort from 'onnxruntime-web'; import fs from 'fs';
ort.env.wasm.numThreads=1; ort.env.logLevel='error';
const name=process.argv[2];
const g=fs.readFileSync(`/tmp/H/web0/${name}.onnx`), d=fs.readFileSync(`/tmp/H/web0/${name}.onnx.data`);
let t=performance.now();
const opt={executionProviders:['wasm'],externalData:[{path:`${name}.onnx.data`,data:d}],graphOptimizationLevel:'all'};
if(process.argv[3]) opt.extra={session:{disable_prepacking:'1'}};
const s=await ort.InferenceSession.create(g,opt);
console.log(name,'load',performance.now()-t, 'rss',process.memoryUsage().rss/1e6|0, s.inputNames.slice(-3));
const P=161280, L=30;
let past={}; for(let i=0;i<L;i++)for(const k of['key','value'])past[`past_key_values.${i}.${k}`]=new ort.Tensor('float32',new Float32Array(0),[1,3,0,64]);
const row=new ort.Tensor('float32',new Float32Array(P),[1,P]);
let total=0;
async function step(ids){ total+=ids.length;
 const f={...past,input_ids:new ort.Tensor('int64',BigInt64Array.from(ids.map(BigInt)),[1,ids.length]),attention_mask:new ort.Tensor('int64',new BigInt64Array(total).fill(1n),[1,total]),'lime.row':row,'lime.logits_from':new ort.Tensor('int64',BigInt64Array.from([-1n]),[1])};
 const o=await s.run(f); past={}; for(const k in o) if(k!=='logits') past[k.replace('present','past_key_values')]=o[k];
 const l=o.logits.data; let b=0; for(let i=1;i<l.length;i++) if(l[i]>l[b]) b=i; return b;}
t=performance.now(); let n=await step([1,9690,198,2683,359,253,5356,5646,11173,3365,3511,308,34519,28,7018,411,407,19712,8182,2,198,1,4093,198,1780,314,260,3575,282,4649,47,2,198,1,520,9531,198]); console.log('prefill 37',performance.now()-t);
const times=[],out=[]; for(let i=0;i<24;i++){out.push(n);t=performance.now(); n=await step([n]); times.push(performance.now()-t);}
times.sort((a,b)=>a-b); console.log('token ms median',times[12],'best',times[0],'rss',process.memoryUsage().rss/1e6|0,out.join(' '));
