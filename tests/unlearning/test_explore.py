import time
from resalign.unlearning import resalign
from resalign.contracts import Run
from resalign.tensors.steps import DivergenceError
def test_x(models, unlearning_data):
    for adaptation in ("full","lora"):
      for gamma in (0.01,0.1,0.3,1.0,3.0,10.0,100):
        for omega in (1.0,0.5,.25,.125,1/16,1/32,1/64):
            c = resalign.Config.parse(dict(steps=1,batch_size=2,draws=1,gamma=gamma,max_residual=1e9,richardson={"steps":2,"relaxation":omega},simulation={"lr":[1e-3],"steps":[2],"loss":["denoising"],"adaptation":[adaptation],"optimizer":["sgd"]}),where="x")
            run=Run(0); t=time.time()
            try:
                resalign.unlearn(models, unlearning_data, c, run)
                print(adaptation,gamma,omega,run.history.last("relative_residual"), run.history.last("stationarity"), round(time.time()-t,2))
            except DivergenceError as e: print(adaptation, gamma,omega,e)
